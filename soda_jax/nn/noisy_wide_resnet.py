"""A wide ResNet (arXiv 1605.07146) that is told the noise of its images, as those of score models are (2011.13456).

    images:  each less its mean, over its standard deviation, or 1 / sqrt(pixels) where that is more      (1)
    noise:   e = [sin(2 pi w u) .., cos(2 pi w u) ..],  w ~ 16 N(0, 1), 128 of them, fixed;
             e <- Linear(SiLU(Linear(e))), 512 features each                                              (2)
    block:   h = conv(SiLU(GN(x))) + Linear(SiLU(e)),  x + conv(SiLU(GN(h)))                              (3)

GN has min(channels / 4, 32) groups, or the most that divide both. depth = 6 n + 4: n blocks at each of three
resolutions, of 16, 32 and 64 times `width` channels; the first block of the later two halves the sides.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.conv import FAN_IN, Conv
from soda_jax.nn.norm import GroupNorm
from soda_jax.types import Image

FREQUENCIES, SCALE, FEATURES = 128, 16.0, 512
WAVES = (SCALE * np.random.default_rng(0).normal(size=FREQUENCIES)).astype(np.float32)  # w of (2)


def standardised(x: Image) -> Image:
    """(1)"""
    pixels = x[0].size
    mean, deviation = jnp.mean(x, (1, 2, 3), keepdims=True), jnp.std(x, (1, 2, 3), keepdims=True)
    return (x - mean) / jnp.maximum(deviation, pixels**-0.5)


def normalised(x: Image, name: str, dtype: Any) -> Image:
    """SiLU(GN(x))"""
    return nn.silu(GroupNorm(min(x.shape[-1] // 4, 32), dtype=dtype, name=name)(x))


class NoiseMLP(nn.Module):
    """(2)"""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, u: Float[Array, " b"]) -> Float[Array, "b _"]:
        angle = 2 * jnp.pi * u.astype(jnp.float32)[:, None] * WAVES[None]
        e = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
        for name in ("dense_0", "dense_1"):
            e = nn.Dense(FEATURES, dtype=self.dtype, name=name)(e if name == "dense_0" else nn.silu(e))
        return e


class WideBlock(nn.Module):
    """(3); a 1 x 1 convolution on the way around where channels or sides change."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, e: Float[Array, "b n"]) -> Float[Array, "b h2 w2 {self.features}"]:
        h = normalised(x, "norm0", self.dtype)
        h = Conv(self.features, 3, self.stride, self.dtype, FAN_IN, name="conv0")(h)
        h += nn.Dense(self.features, dtype=self.dtype, name="noise")(nn.silu(e))[:, None, None]
        h = Conv(self.features, dtype=self.dtype, name="conv1")(normalised(h, "norm1", self.dtype))
        if x.shape[-1] != self.features or self.stride > 1:
            x = Conv(self.features, 1, self.stride, self.dtype, FAN_IN, name="shortcut")(x)
        return x + h


class NoisyWideResNet(nn.Module):
    """(1) to (3), then the mean over the pixels and a layer: logits in float32. ValueError for a depth that is none.

    u: what it is told of the noise: t in (0, 1], or log(sigma).
    """

    classes: int
    depth: int = 28
    width: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, u: Float[Array, " b"]) -> Float[Array, "b {self.classes}"]:
        blocks, rest = divmod(self.depth - 4, 6)
        if blocks < 1 or rest or self.width < 1:
            raise ValueError(
                "noisy_classifier.depth must be 6 n + 4, n above 0, and noisy_classifier.width 1 or more, found "
                f"{self.depth} and {self.width}"
            )
        e = NoiseMLP(self.dtype, name="noise")(u)
        h = Conv(16, dtype=self.dtype, name="first")(standardised(x).astype(self.dtype))
        for stage in range(3):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                name = f"stage_{stage}_block{number}"
                h = WideBlock(16 * 2**stage * self.width, stride, self.dtype, name=name)(h, e)
        pooled = jnp.mean(normalised(h, "norm", self.dtype).astype(jnp.float32), (1, 2))
        return nn.Dense(self.classes, name="head")(pooled)
