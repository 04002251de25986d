"""Folders as `diffusers` writes them, of small U-Nets with random weights; for tests that have it and PyTorch."""

import json

import numpy as np
import pytest

DDPM = {"norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}
DDPM |= {"attention_head_dim": None}  # as google/ddpm-cifar10-32 has them; USUAL: what its examples train
USUAL = {}
NET = {
    "sample_size": 16,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
CONFIG = {"_class_name": "UNet2DModel", **NET, **DDPM}  # as config.json says it


def network(**changes):
    """UNet2DModel in eval mode, every parameter random, norms too: at 1 and 0 they would hide an exchange."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    net, rng = diffusers.UNet2DModel(**{**NET, **changes}), np.random.default_rng(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.from_numpy(rng.normal(0, 0.1, p.shape).astype(np.float32)))
    return net.eval()


def answer(net, images, times):
    """What it says of images [b, h, w, c] at whole times [b], as we lay images out."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        x = torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())
        return net(x, torch.from_numpy(np.asarray(times))).sample.numpy().transpose(0, 2, 3, 1)


def write(folder, safe=True, **changes):
    """The network, saved there."""
    net = network(**changes)
    net.save_pretrained(folder, safe_serialization=safe)
    return net


def write_config(folder, **changes):
    """A folder with config.json and weights that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    return folder


def rewritten(folder, change):
    """The same folder after `change` of the dictionary of its arrays."""
    numpy_files = pytest.importorskip("safetensors.numpy")
    path = folder / "diffusion_pytorch_model.safetensors"
    arrays = dict(numpy_files.load_file(path))
    change(arrays)
    numpy_files.save_file(arrays, path)
    return folder
