"""What DDPM's U-Nets (ddpm_unet.py) are made of: time as they are told it, their blocks, how both start.

    time:   e = [sin(w_k u) .., cos(w_k u) ..],  w_k = 10000^(-k / (K - 1)),  k = 0 .. K - 1,  2 K = channels    (1)
            e <- e + A a,  then Linear, SiLU, Linear: 4 channels features; a: labels of augmentation            (2)
    block:  h = conv(SiLU(GN(x))) + Linear(SiLU(e)),  x + conv(dropout(SiLU(GN(h))))                             (3)
    start:  weights and biases ~ U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))                                          (4)
    ADM:    h = GN(conv(SiLU(GN(x)))) (1 + scale) + shift,  [scale, shift] = Linear(SiLU(e)),
            x + conv(dropout(SiLU(h)));  2105.05233                                                              (5)

u is what the framework tells of the noise (diffusion/frameworks.py): t / 1000 or log(sigma) / 4, small numbers both.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.attention import SelfAttention
from soda_jax.nn.conv import Conv, upsample
from soda_jax.nn.ddpm_layout import Layout
from soda_jax.nn.norm import EPSILON, GroupNorm
from soda_jax.types import Image

KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # (4)


def bias_init(fan_in: int) -> Callable:
    """(4) for a bias."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def conv(x: Image, features: int, name: str, dtype: Any, kernel: int = 3, stride: int = 1) -> Array:
    """A convolution that starts as (4)."""
    start = bias_init(kernel**2 * x.shape[-1])
    layer = Conv(features, kernel, stride, dtype, KERNEL, bias_init=start, name=name)
    return layer(x)


def dense(x: Float[Array, "b n"], features: int, name: str, dtype: Any) -> Float[Array, "b {features}"]:
    """A linear layer that starts as (4)."""
    start = bias_init(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=KERNEL, bias_init=start, name=name)(x)


def time_sinusoid(u: Float[Array, " b"], width: int, shift: int = 1) -> Float[Array, "b {width}"]:
    """(1), over K - shift. ValueError for an odd width, or one below 4."""
    if width % 2 or width < 4:
        raise ValueError(f"model.channels must be even and 4 or more, found {width}")
    half = width // 2
    waves = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / (half - shift))
    angle = u.astype(jnp.float32)[:, None] * waves[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def average_pairs(x: Image) -> Float[Array, "b h//2 w//2 c"]:
    """The mean of each 2 x 2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


class TimeMLP(nn.Module):
    """(1) and (2), to 4 * width features. labels [b, n] are looked at where `label_dim` is n, None counts as zeros."""

    width: int
    label_dim: int = 0
    dtype: Any = jnp.float32
    layout: Layout = Layout()

    @nn.compact
    def __call__(
        self, u: Float[Array, " b"], labels: Float[Array, "b n"] | None = None
    ) -> Float[Array, "b m"]:
        e = time_sinusoid(self.layout.told(u), self.width, self.layout.shift)
        if self.label_dim:
            labels = jnp.zeros((*u.shape, self.label_dim)) if labels is None else labels
            e += nn.Dense(self.width, use_bias=False, kernel_init=KERNEL, name="labels")(labels)
        e = dense(e, 4 * self.width, "dense_0", self.dtype)
        return dense(nn.silu(e), 4 * self.width, "dense_1", self.dtype)


class Block(nn.Module):
    """(3), resampled if asked for, then self-attention if asked for. Returns its output and its branch alone.

    head_channels: of attention; 0: one head. resample: "" | "up" | "down". scaled: (5) in the place of (3).
    """

    features: int
    attend: bool = False
    resample: str = ""
    head_channels: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32
    epsilon: float = EPSILON
    scaled: bool = False

    @nn.compact
    def __call__(
        self, x: Image, time: Float[Array, "b n"], train: bool = False
    ) -> tuple[Float[Array, "b h2 w2 c2"], Float[Array, "b h2 w2 c2"]]:
        norm = partial(GroupNorm, dtype=self.dtype, epsilon=self.epsilon)
        h = nn.silu(norm(name="norm0")(x))
        if self.resample:
            change = {"up": upsample, "down": average_pairs}[self.resample]
            h, x = change(h), change(x)
        h = conv(h, self.features, "conv0", self.dtype)
        told = dense(nn.silu(time), (1 + self.scaled) * self.features, "time", self.dtype)[:, None, None]
        h = norm(name="norm1")(h if self.scaled else h + told)
        if self.scaled:
            scale, shift = jnp.split(told, 2, -1)
            h = h * (1 + scale) + shift
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        branch = conv(h, self.features, "conv1", self.dtype)
        if x.shape[-1] != self.features:
            x = conv(x, self.features, "shortcut", self.dtype, kernel=1)
        x = x + branch
        return (x + self.attention(norm(name="attention_norm")(x)) if self.attend else x), branch

    def attention(self, x: Image) -> Image:
        """Self-attention over the pixels of a normalised image."""
        b, h, w, c = x.shape
        tokens = x.reshape(b, h * w, c)
        heads = c // self.head_channels if self.head_channels else 1
        layer = SelfAttention(heads, KERNEL, self.dtype, bias_init(c), name="attention")
        return layer(tokens).reshape(b, h, w, c)
