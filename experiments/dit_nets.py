"""A file of DiT's public weights (`soda_jax.nn.dit_weights`) as a DDAE: its net without sigma, under the null class.

With ddae.classes, which must be as many as the file's net knows, it goes on being told of them. Its time k = 0 .. 999
is our t = (k + 1) / 1000, or noise level k + 1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from soda_jax.nn.dit import SIZES, DiT
from soda_jax.nn.dit_weights import PLACES, dit_params, without_classes, without_sigma
from soda_jax.nn.vit import Size
from soda_jax.types import Tree

NOISE = {"framework": "ddpm", "schedule": "linear", "steps": 1000, "prediction": "eps", "loss_in": "eps"}


def keys_of(net: DiT, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"model.dit_size": "XL", ...}: what the config of a run with this net must say."""
    names = {size: name for name, size in SIZES.items()}
    size = Size(net.width, net.depth, net.heads)
    found: dict[str, Any] = {"denoiser": "dit", "patch": net.patch, "dit_size": names.get(size, "custom")}
    if size not in names:
        found |= {"dit_width": net.width, "dit_depth": net.depth, "dit_heads": net.heads}
    keys = {f"model.{name}": value for name, value in found.items()}
    keys |= {f"diffusion.{name}": value for name, value in NOISE.items()}
    return {**keys, "data.channels": net.out_channels, "ddae.augment": 0.0, **sides(net, state)}


def sides(net: DiT, state: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Of the images that it was trained on, where the file holds their places."""
    if PLACES not in state:
        return {}
    side = net.patch * round(state[PLACES].shape[-2] ** 0.5)
    return {"data.image_size": side, "data.source_size": side}


def params_of(net: DiT, state: Mapping[str, np.ndarray], path: str, classes: int = 0) -> Tree:
    """The parameters of the net that a DDAE with so many classes trains.

    Raises what `dit_params` raises, and ValueError where the net knows another number of them.
    """
    if classes not in (0, net.class_count):
        known = f"{net.class_count}, or 0: the net under its null class" if net.class_count else "0"
        raise ValueError(f"ddae.classes={classes}: the net in {path} knows {net.class_count}, so set {known}")
    params = dit_params(state, net, path)
    return (without_sigma if classes else without_classes)(net, params)[1]
