"""Group normalisation (arXiv 1803.08494) with float32 statistics.

    y = (x - mean_g) / sqrt(var_g + eps) * scale + shift                                              (1)

mean_g and var_g are taken over the pixels and channels of group g of one example. Scale and shift may differ
by example, so that adaptive normalisation costs no pass over x of its own.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from soda_jax.types import Image

EPSILON = 1e-5


class GroupNorm(nn.Module):
    """(1) with a learned scale and shift a channel, or none; returns `dtype`.

    The number of groups is the greatest common divisor of `groups` and the channels, so that any width works.
    """

    groups: int = 32
    affine: bool = True
    dtype: Any = jnp.float32
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: Image) -> Image:
        if not self.affine:
            return group_norm(x, self.groups, epsilon=self.epsilon).astype(self.dtype)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        shift = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return group_norm(x, self.groups, scale[None], shift[None], self.epsilon).astype(self.dtype)


def group_norm(
    x: Image,
    groups: int,
    scale: Float[Array, "#b c"] | None = None,
    shift: Float[Array, "#b c"] | None = None,
    epsilon: float = EPSILON,
) -> Image:
    """(1) in float32, as one multiply and one add a pixel: all the rest happens on [b, c] arrays."""
    x = x.astype(jnp.float32)
    mean, var = moments(x, math.gcd(groups, x.shape[-1]))
    gain = lax.rsqrt(var + epsilon)
    if scale is not None:
        gain = gain * scale
    offset = -mean * gain
    if shift is not None:
        offset = offset + shift
    return x * gain[:, None, None] + offset[:, None, None]


def moments(x: Image, groups: int) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Mean and variance of each channel's group, repeated for each channel."""
    mean = over_group(x.mean((1, 2)), groups)
    square = over_group(jnp.square(x).mean((1, 2)), groups)
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def over_group(values: Float[Array, "b c"], groups: int) -> Float[Array, "b c"]:
    """The mean over each group of channels, in the place of every channel of it."""
    b, c = values.shape
    mean = values.reshape(b, groups, c // groups).mean(-1, keepdims=True)
    return jnp.broadcast_to(mean, (b, groups, c // groups)).reshape(b, c)
