"""Sinusoidal embeddings of time and of positions.

    omega_k = 1 / (2 pi s 10000^(k/K)),   k = 0 .. K-1                                                (1)
    embedding(u) = [cos(omega_0 u) .. cos(omega_{K-1} u), sin(omega_0 u) .. sin(omega_{K-1} u)]       (2)

u is time in [-1, 1] and s = 1e-4 (SODA, arXiv 2311.17901, appendix G.3, as others restate it). The scale
divides, so that the fastest wave turns by about pi between two neighbours of 1000 steps.
Positions of patches are whole numbers and take s = 1 / (2 pi), which is the embedding of arXiv 1706.03762.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.conv import FAN_IN


def frequencies(count: int, scale: float) -> Float[np.ndarray, " k"]:
    """(1), from the fastest to the slowest."""
    return 1.0 / (2 * math.pi * scale * 10000.0 ** (np.arange(count) / count))


def sinusoid(u: Float[Array, "*t"], width: int, scale: float) -> Float[Array, "*t {width}"]:
    """(2) for any shape of u; width must be even (ValueError)."""
    if width % 2:
        raise ValueError(f"a sinusoidal embedding needs an even width, not {width}: change model.channels")
    omega = jnp.asarray(frequencies(width // 2, scale), jnp.float32)
    angle = jnp.expand_dims(u, -1) * omega.reshape((1,) * u.ndim + (-1,))
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


def time_embedding(t: Float[Array, " b"], width: int, scale: float = 1e-4) -> Float[Array, "b {width}"]:
    """Embed diffusion time in [0, 1], moved to [-1, 1] first."""
    return sinusoid(2.0 * t.astype(jnp.float32) - 1.0, width, scale)


def position_embedding(height: int, width: int, features: int) -> Float[Array, "n {features}"]:
    """Fixed embedding of a grid's places, row by row: half the features for the row, half for the column."""
    scale = 1 / (2 * math.pi)
    rows = sinusoid(jnp.arange(height, dtype=jnp.float32), features // 2, scale)
    columns = sinusoid(jnp.arange(width, dtype=jnp.float32), features // 2, scale)
    grid = (height, width, features // 2)
    both = [jnp.broadcast_to(rows[:, None], grid), jnp.broadcast_to(columns[None], grid)]
    return jnp.concatenate(both, -1).reshape(height * width, features)


class TimeEmbedding(nn.Module):
    """`time_embedding` of `width`, then a two-layer perceptron to 4 * width features in `dtype`."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, t: Float[Array, " b"]) -> Float[Array, "b n"]:
        h = time_embedding(t, self.width)
        h = nn.Dense(4 * self.width, dtype=self.dtype, kernel_init=FAN_IN, name="dense_0")(h)
        return nn.Dense(4 * self.width, dtype=self.dtype, kernel_init=FAN_IN, name="dense_1")(nn.silu(h))
