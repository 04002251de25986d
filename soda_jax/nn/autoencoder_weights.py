"""Weights of diffusers' `AutoencoderKL`, such as stabilityai/sd-vae-ft-mse, under the names of `autoencoder_kl.py`.

    vae, params = read("sd-vae-ft-mse")     a folder with config.json and diffusion_pytorch_model.safetensors or .bin
    z = vae.encode(params, images)

Attention is called query, key, value and proj_attn in older files.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from soda_jax.nn import torch_weights
from soda_jax.nn.autoencoder_kl import AutoencoderKL, Decoder, Encoder, Sized
from soda_jax.nn.diffusers_weights import laid_out, put, renamed
from soda_jax.types import Tree

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
Name = tuple[str, str, tuple[int, ...]]  # theirs, ours as a path, shape there

# What a config.json leaves out, as AutoencoderKL has it; and what of it cannot be otherwise here.
USUAL = {"in_channels": 3, "out_channels": 3, "layers_per_block": 1, "block_out_channels": (64,)}
USUAL |= {"latent_channels": 4, "scaling_factor": 0.18215}
USUAL |= {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
FIXED = {"_class_name": "AutoencoderKL", "act_fn": "silu", "norm_num_groups": 32, "shift_factor": None}
FIXED |= {"latents_mean": None, "latents_std": None, "mid_block_add_attention": True}
FIXED |= {"use_quant_conv": True, "use_post_quant_conv": True}


def read(folder: str | Path) -> tuple[AutoencoderKL, Tree]:
    """The network of a folder, or of its folder `vae`, and its parameters, float32.

    Raises FileNotFoundError where a file is missing, and ValueError, naming its key, for one that does not fit.
    """
    given = Path(folder)
    path = next((place for place in (given, given / "vae") if (place / "config.json").is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder}: expected a folder of diffusers with a config.json, found none")
    weights = next((path / name for name in FILES if (path / name).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{path}: expected {' or '.join(FILES)}, found neither")
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{path / 'config.json'} is not JSON ({error})") from error
    vae = network(config, path / "config.json")
    return vae, vae_params(torch_weights.read(weights), vae, weights)


def network(config: Mapping[str, Any], path: str | Path = "config.json") -> AutoencoderKL:
    """The network that a config.json speaks of. ValueError, naming its key, for another architecture."""
    c = {**USUAL, **FIXED, **config}
    widths = tuple(c["block_out_channels"])
    wanted = {**FIXED, "down_block_types": ("DownEncoderBlock2D",) * len(widths)}
    wanted |= {"up_block_types": ("UpDecoderBlock2D",) * len(widths), "out_channels": c["in_channels"]}
    for key, value in wanted.items():
        found = tuple(c[key]) if isinstance(c[key], list) else c[key]
        if found != value:
            raise ValueError(f"{path}: {key} = {found!r} is not known here, expected {value!r}")
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{path}: block_out_channels = {widths} must be multiples of the first")
    sizes = {"channels": widths[0], "multipliers": tuple(width // widths[0] for width in widths)}
    sizes |= {"blocks": c["layers_per_block"], "image_channels": c["in_channels"]}
    sizes |= {"latent_channels": c["latent_channels"]}
    return AutoencoderKL(encoder=Encoder(**sizes), decoder=Decoder(**sizes), scale=c["scaling_factor"])


def vae_params(state: Mapping[str, np.ndarray], vae: AutoencoderKL, path: str | Path = "the weights") -> Tree:
    """The parameters of this network.

    Raises ValueError, naming the key, for an array that is missing, of another shape, or of none of its layers.
    """
    state, params = dict(renamed(state, False)), {}
    names = {theirs: (ours, shape) for theirs, ours, shape in layout(vae)}
    for theirs, (ours, shape) in names.items():
        value = torch_weights.take(state, theirs, shape, path)
        put(params, tuple(ours.split("/")), laid_out(value, theirs.rpartition(".")[2]))
    if extra := sorted(state.keys() - names.keys()):
        raise ValueError(f"{path} holds {', '.join(map(repr, extra[:3]))}, which this AutoencoderKL has not")
    for side in params.values():
        attention = side["middle_attention"]["attention"]
        three = [attention.pop(name) for name in "qkv"]
        attention["qkv"] = {kind: np.concatenate([one[kind] for one in three], -1) for kind in three[0]}
    return params


def layout(vae: AutoencoderKL) -> Iterator[Name]:
    """Every parameter."""
    latent = vae.encoder.latent_channels
    yield from conv("quant_conv", "encoder/quant", 2 * latent, 2 * latent, 1)
    yield from conv("post_quant_conv", "decoder/quant", latent, latent, 1)
    yield from encoder_layout(vae.encoder)
    yield from decoder_layout(vae.decoder)


def encoder_layout(net: Encoder) -> Iterator[Name]:
    """Names and shapes of the way down."""
    width = net.channels
    yield from conv("encoder.conv_in", "encoder/first", net.image_channels, width)
    for level, after in enumerate(net.widths()):
        theirs, ours = f"encoder.down_blocks.{level}", f"encoder/down_{level}"
        for i in range(net.blocks):
            yield from block(f"{theirs}.resnets.{i}", f"{ours}_block{i}", width, after)
            width = after
        if level + 1 < len(net.multipliers):
            yield from conv(f"{theirs}.downsamplers.0.conv", f"{ours}_resample", width, width)
    yield from ends("encoder", net, width, 2 * net.latent_channels)


def decoder_layout(net: Decoder) -> Iterator[Name]:
    """Of the way up, whose blocks diffusers counts from the lowest level."""
    width, last = net.widths()[-1], len(net.multipliers) - 1
    yield from conv("decoder.conv_in", "decoder/first", net.latent_channels, width)
    for level, after in reversed(list(enumerate(net.widths()))):
        theirs, ours = f"decoder.up_blocks.{last - level}", f"decoder/up_{level}"
        for i in range(net.blocks + 1):
            yield from block(f"{theirs}.resnets.{i}", f"{ours}_block{i}", width, after)
            width = after
        if level:
            yield from conv(f"{theirs}.upsamplers.0.conv", f"{ours}_resample", width, width)
    yield from ends("decoder", net, width, net.image_channels)


def ends(side: str, net: Sized, width: int, out: int) -> Iterator[Name]:
    """The middle, and what comes last."""
    middle = net.widths()[-1]
    for i in range(2):
        yield from block(f"{side}.mid_block.resnets.{i}", f"{side}/middle_block{i}", middle, middle)
    theirs, ours = f"{side}.mid_block.attentions.0", f"{side}/middle_attention"
    yield from norm(f"{theirs}.group_norm", f"{ours}/norm", middle)
    for name, own in {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"}.items():
        yield f"{theirs}.{name}.weight", f"{ours}/attention/{own}/kernel", (middle, middle)
        yield f"{theirs}.{name}.bias", f"{ours}/attention/{own}/bias", (middle,)
    yield from norm(f"{side}.conv_norm_out", f"{side}/out_norm", width)
    yield from conv(f"{side}.conv_out", f"{side}/out_conv", width, out)


def block(theirs: str, ours: str, before: int, after: int) -> Iterator[Name]:
    """(3)"""
    yield from norm(f"{theirs}.norm1", f"{ours}/norm0", before)
    yield from conv(f"{theirs}.conv1", f"{ours}/conv0", before, after)
    yield from norm(f"{theirs}.norm2", f"{ours}/norm1", after)
    yield from conv(f"{theirs}.conv2", f"{ours}/conv1", after, after)
    if before != after:
        yield from conv(f"{theirs}.conv_shortcut", f"{ours}/shortcut", before, after, 1)


def conv(theirs: str, ours: str, before: int, after: int, side: int = 3) -> Iterator[Name]:
    """A convolution of side x side pixels."""
    yield f"{theirs}.weight", f"{ours}/kernel", (after, before, side, side)
    yield f"{theirs}.bias", f"{ours}/bias", (after,)


def norm(theirs: str, ours: str, width: int) -> Iterator[Name]:
    """Scale and shift."""
    yield f"{theirs}.weight", f"{ours}/scale", (width,)
    yield f"{theirs}.bias", f"{ours}/bias", (width,)
