"""Layer modulation (SODA, arXiv 2311.17901): how time and the sections of z steer the blocks of a U-Net.

    AdaGN(h, t, z) = z_s * (t_s * GroupNorm(h) + t_b) + z_b                                           (1)
                   = (z_s t_s) * GroupNorm(h) + (z_s t_b + z_b)                                       (2)
    [t_s, t_b] = Linear(SiLU(time)),   [z_s, z_b] = Linear(SiLU(z_i))                                 (3)

Which section belongs to which block: a U-Net of L levels with n blocks a level keeps L(n+1) feature maps on
its way down (at every level one convolution, strided except at the first, then n blocks) and L(n+1) blocks on
its way up, each of which takes the youngest map left. So the maker and the taker of map i are a pair:

    per_skip    section i for the pair of map i, one more for the middle:     L(n+1) + 1 sections
    per_level   section l for all blocks of level l, one more for the middle: L + 1 sections
    whole       one section for all blocks

A convolution has no normalisation to modulate, so the section of its map steers the taker alone.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice
from soda_jax.nn.conv import FAN_IN
from soda_jax.nn.norm import group_norm
from soda_jax.types import Image

GROUPINGS = ("per_skip", "per_level", "whole")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairing:
    """The section of each layer: makers in order (None for a convolution), the middle, takers in order."""

    down: tuple[int | None, ...]
    middle: int
    up: tuple[int, ...]


def section_count(levels: int, blocks: int, grouping: str) -> int:
    """How many sections z is cut into. ValueError for an unknown grouping."""
    check_choice("model.grouping", grouping, GROUPINGS)
    return {"per_skip": levels * (blocks + 1) + 1, "per_level": levels + 1, "whole": 1}[grouping]


def section_of_layers(levels: int, blocks: int, grouping: str) -> Pairing:
    """Which section modulates which layer; takers are mirrored, since they take the youngest map first."""
    middle, per_level = section_count(levels, blocks, grouping) - 1, blocks + 1
    size = {"per_skip": 1, "per_level": per_level, "whole": levels * per_level + 1}[grouping]
    maps = [i // size for i in range(levels * per_level)]
    return Pairing(
        down=tuple(None if i % per_level == 0 else section for i, section in enumerate(maps)),
        middle=middle,
        up=tuple(reversed(maps)),
    )


def fitting_latent_sizes(dim: int, sections: int) -> tuple[int, int]:
    """The nearest multiples of `sections` at most and at least dim, with at least one feature a section."""
    lower = max(dim // sections, 1) * sections
    return lower, max(-(-dim // sections) * sections, lower)


def check_latent_size(dim: int, sections: int) -> None:
    """Raise ValueError, with the sizes that fit, unless dim features can be cut into equal sections."""
    lower, upper = fitting_latent_sizes(dim, sections)
    if dim not in (lower, upper):
        fit = f"{lower} fits" if lower == upper else f"{lower} and {upper} fit"
        raise ValueError(f"model.latent_dim={dim} can't be cut into {sections} equal sections: {fit}")


def ones_then_zeros(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, " n"]:
    """Start of a bias whose first half scales and whose second half shifts."""
    half = (shape[0] // 2,)
    return jnp.concatenate([initializers.ones(key, half, dtype), initializers.zeros(key, half, dtype)])


class ScaleAndShift(nn.Module):
    """(3): two float32 arrays [b, channels]; the scale's bias starts at 1, so that it is 1 on average.

    The product is in `dtype`, or devices would exchange the gradients of these kernels in float32; the bias is added
    after it in float32, for bfloat16 rounds a scale near 1 to 1/128.
    """

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "b n"]) -> list[Array]:
        kernel = self.param("kernel", FAN_IN, (features.shape[-1], 2 * self.channels), jnp.float32)
        bias = self.param("bias", ones_then_zeros, (2 * self.channels,), jnp.float32)
        product = nn.silu(features).astype(self.dtype) @ kernel.astype(self.dtype)
        return jnp.split(product.astype(jnp.float32) + bias[None], 2, axis=-1)


class AdaGN(nn.Module):
    """(1), computed as (2). z None leaves out its part; a section of zeros still adds the bias of (3)."""

    groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Image, time: Float[Array, "b n"], z: Float[Array, "b d"] | None = None) -> Image:
        scale, shift = ScaleAndShift(h.shape[-1], self.dtype, name="time")(time)
        if z is not None:
            z_scale, z_shift = ScaleAndShift(h.shape[-1], self.dtype, name="latent")(z)
            scale, shift = z_scale * scale, z_scale * shift + z_shift
        return group_norm(h, self.groups, scale, shift).astype(self.dtype)
