"""Bundles of small encoders of every family, with weights drawn by numpy, and all that reads them."""

import functools
import importlib.util
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax import export
from soda_jax.export import bundle, numpy_encoder
from soda_jax.export.encoders import Encoder
from soda_jax.nn.ddpm_unet import Tapped
from soda_jax.nn.mobilenet import MobileNetV2
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.vit import ViT
from soda_jax.nn.wide_resnet import WideResNet

ENCODERS = {
    "resnet18": (ResNet(depth=18, latent_dim=6, width=4), (16, 16, 3)),
    "resnet18_small_stem": (ResNet(depth=18, latent_dim=6, width=4, stem="small"), (8, 8, 1)),
    "resnet50_strided": (ResNet(depth=50, latent_dim=6, width=4, stem="strided"), (16, 24, 3)),
    "resnet10_normed": (ResNet(depth=10, latent_dim=6, width=4, pooled_norm=True), (16, 16, 3)),
    "vit": (ViT(variant="Ti", latent_dim=6, patch=8), (16, 24, 3)),
}
TAP = Tapped(channels=6, multipliers=(1, 1), blocks=1, attention=(False, True), tap="out_3", told=0.3)
ENCODERS |= {
    "tap": (TAP, (8, 8, 1)),
    "tap_blocks": (TAP.clone(resample="block", patch=2, head_channels=3, tap="in_3", scale=1.7), (16, 24, 3)),
}
ENCODERS |= {
    "mobilenetv2": (MobileNetV2(latent_dim=6, width=0.25), (32, 32, 3)),
    "wrn": (WideResNet(depth=10, widen=1, latent_dim=6), (8, 8, 1)),
}
JAX_AND_ONNX = ("tap", "tap_blocks", "mobilenetv2", "wrn")  # nets that the other readers do not know
ABOUT = {"method": "soda", "step": 7}


def variables(module, shape):
    """Drawn so that activations stay in the order of 1 and every weight matters."""
    rng = np.random.default_rng(0)
    abstract = jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *shape))), jax.random.key(0))

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5, jnp.float32)
        around = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return jnp.asarray(around + rng.uniform(-0.3, 0.3, leaf.shape), jnp.float32)

    return {"batch_stats": {}, **jax.tree.map_with_path(draw, abstract)}


@functools.cache
def encoder(name):
    """The encoder of this name in ENCODERS."""
    module, shape = ENCODERS[name]
    features = ("z",) if name.startswith("tap") else ("z", "pooled")
    return Encoder(module=module, variables=variables(module, shape), image_shape=shape, features=features)


@functools.cache
def written(name, dtype="float32"):
    """Its bundle, written once a test run; to be read, not to be changed."""
    folder = Path(tempfile.mkdtemp(prefix="soda_jax_bundle_")) / "bundle"
    return bundle.write(folder, encoder(name), ABOUT, card="# card\n", preprocessing={}, dtype=dtype)


def readers():
    """name -> function from a folder to an encoder; those of libraries that are missing are left out."""
    found = {"jax": export.load, "stablehlo": export.load_program, "numpy": numpy_encoder.load}
    if importlib.util.find_spec("onnxruntime"):
        from soda_jax.export import onnx_encoder

        found["onnx"] = onnx_encoder.load
    if importlib.util.find_spec("torch"):
        found["torch"] = torch_reader
    return found


def torch_reader(folder):
    """numpy in, numpy out."""
    import torch

    from soda_jax.export import torch_encoder

    loaded = torch_encoder.load(folder).eval()

    def encode(images):
        with torch.no_grad():
            return {name: x.numpy() for name, x in loaded(torch.from_numpy(images.copy())).items()}

    return encode


def images(shape, count, seed=0):
    """Noise, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def distance(found, expected):
    """The largest, relative to the largest value of each feature."""
    assert found.keys() == expected.keys()
    return max(
        float(np.abs(np.asarray(found[k]) - expected[k]).max() / np.abs(expected[k]).max()) for k in expected
    )
