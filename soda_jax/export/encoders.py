"""Frozen encoders: a network, its variables, and the images that it takes.

    features = E((u / 127.5) - 1),  u uint8 in 0..255                                             (1)

Networks compute in float32 here, whatever they were trained in: every reader of a bundle does.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.methods.base import to_float
from soda_jax.nn.ddpm_unet import Tapped
from soda_jax.nn.dit import TappedDiT
from soda_jax.nn.mobilenet import MobileNetV2
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.vit import ViT
from soda_jax.nn.wide_resnet import WideResNet
from soda_jax.types import Bytes, Features, Image, Tree

# name in config.json -> module: `(images in [-1, 1], train) -> (z, features)`, described by its fields
FAMILIES: dict[str, type[nn.Module]] = {"resnet": ResNet, "vit": ViT, "diffusion_tap": Tapped}
FAMILIES |= {"dit_tap": TappedDiT, "mobilenetv2": MobileNetV2, "wide_resnet": WideResNet}
Images = jax.Array | np.ndarray  # whatever a user gives: shape and type are checked in words, by check_images
LARGEST = 1.01  # of float images; a resampling filter may reach a little beyond [-1, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """A frozen encoder, `images -> {name: features [b, n]}`, pure: jit, vmap and grad may be put around it.

    module: of FAMILIES.
    variables: {"params", "batch_stats"} of the module alone.
    image_shape: height, width and channels of the images, in pixels.
    features: which of the module's features it gives.
    """

    module: nn.Module
    variables: Tree
    image_shape: tuple[int, int, int]
    features: tuple[str, ...] = ("z", "pooled")

    def __call__(self, images: Images) -> Features:
        """(1) of uint8 images `[b, h, w, c]`, or E of float images in [-1, 1]; float32.

        Raises ValueError for images of another size, type or range; under jit, where values are not known, not
        for the range.
        """
        check_images(images, self.image_shape)
        return encode(self.module, self.features, self.variables, jnp.asarray(images))


@partial(jax.jit, static_argnums=(0, 1))
def encode(module: nn.Module, names: tuple[str, ...], variables: Tree, images: Bytes | Image) -> Features:
    """The named features of these images, in eval mode."""
    x = to_float(images).astype(jnp.float32)
    features = module.apply(variables, x, train=False)[1]
    return {name: features[name].astype(jnp.float32) for name in names}


def in_float32(module: nn.Module) -> nn.Module:
    """The same network, computing in float32."""
    return module.clone(dtype=jnp.float32)


def describe(module: nn.Module) -> dict[str, Any]:
    """{"family", "fields"} as JSON. ValueError for a module that is not in FAMILIES."""
    for family, kind in FAMILIES.items():
        if type(module) is kind:
            fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
            return {"family": family, "fields": {k: v for k, v in fields.items() if k not in _NOT_TOLD}}
    raise ValueError(f"{type(module).__name__} cannot be exported: add a line to export/encoders.py FAMILIES")


_NOT_TOLD = ("parent", "name", "dtype")


def restored(description: Mapping[str, Any]) -> nn.Module:
    """The module of `describe`. ValueError for a family or a field that this version does not know."""
    family, fields = description["family"], description["fields"]
    try:
        return FAMILIES[family](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"this version of soda_jax has no encoder {family!r} with {sorted(fields)}: update it"
        ) from error


def check_images(images: Images, shape: tuple[int, int, int]) -> None:
    """Raises ValueError unless these are uint8 images, or float images in [-1, 1], of this shape."""
    size = "x".join(map(str, shape))
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ValueError(
            f"expected images [b, {', '.join(map(str, shape))}], found {list(images.shape)}: crop and scale them to "
            f"{size} as preprocessing.json says"
        )
    if images.dtype == jnp.uint8:
        return
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"expected uint8 images in 0..255, or floats in [-1, 1], found {images.dtype}: convert them"
        )
    if not isinstance(images, jax.core.Tracer) and images.size:
        _check_range(jnp.asarray(images))


def _check_range(images: Float[Array, "b h w c"]) -> None:
    low, high = float(images.min()), float(images.max())
    if not -LARGEST <= low <= high <= LARGEST:  # also where one of them is NaN
        raise ValueError(
            f"expected float images in [-1, 1], found {low:g}..{high:g}: give uint8 in 0..255, or u / 127.5 - 1"
        )
