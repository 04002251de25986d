"""Heads that answer for every pixel: classes (after BiSeNet, arXiv 1808.00897), or a heat map for each point.

Segmentation looks twice: at the image itself along a short spatial path, which keeps places, and at the encoder's last
maps along a context path, which knows what is there:

    s   = stride-2 convolutions of the image, as many as lead to 1/stride of its side                   (1)
    a_i = h_i sigmoid(W mean(h_i)),  h_i a convolution of map i                                         (2)
    c   = up(... up(a_n + W mean(last map)) + a_(n-1) ...), a convolution after each up                 (3)
    f   = W [s, c],  f <- f + f sigmoid(W relu(W mean(f)))                                              (4)

means being those over all pixels. Classes are read from f, and in training from each stage of (3), too. Sizes are
doubled linearly. Points are read from the last map by transposed convolutions, each of twice the size (arXiv
1804.06208). Convolutions are followed by BatchNorm, but for the last ones, and for those of means, where BiSeNet has it
as well: over as many numbers as a batch has images, it would tell them too little, and rounding too much.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.attention import Tokens
from soda_jax.nn.conv import Conv, depth_to_space
from soda_jax.nn.resnet import XAVIER, NormalisedConv
from soda_jax.types import Features, Image

Maps = Sequence[Float[Array, "b _ _ _"]]  # the largest first
Wide = Float[Array, "b h2 w2 {self.width}"]


def as_map(x: Image | Tokens) -> Float[Array, "b _ _ c"]:
    """Tokens of a square grid, row by row, as the map that they are; a map as it is."""
    if x.ndim == 4:
        return x
    b, n, c = x.shape
    return x.reshape(b, math.isqrt(n), math.isqrt(n), c)


def maps_of(encoder: nn.Module, features: Features) -> list[Array]:
    """The maps that heads look at, the largest first; `encoder.pyramid` names them."""
    return [as_map(features[name]) for name in encoder.pyramid]


class SegmentationHead(nn.Module):
    """(1) to (4). `width` channels throughout; `stride`, a power of 2: pixels of the image to one of s and f.

    Returns logits [b, h, w, classes] of every pixel, and in training those of each stage of (3), else [].
    """

    classes: int
    width: int = 64
    stride: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Image, maps: Maps, train: bool
    ) -> tuple[Float[Array, "b h w {self.classes}"], list[Array]]:
        size = images.shape[1:3]
        spatial = self.spatial(images, train)
        stages = self.context(maps, train)
        fused = self.fused(spatial, resized(stages[-1], spatial.shape[1:3]), train)
        wanted = train or self.is_initializing()
        early = [self.answer(x, size, train, f"early{i}") for i, x in enumerate(stages)] if wanted else []
        return self.answer(fused, size, train, "answer"), early

    def conv(self, x: Image, kernel: int, train: bool, name: str, stride: int = 1) -> Wide:
        """Convolution, BatchNorm."""
        return NormalisedConv(self.width, kernel, stride, self.dtype, name=name)(x, train)

    def linear(self, x: Image, name: str) -> Wide:
        """At each pixel."""
        return Conv(self.width, 1, dtype=self.dtype, kernel_init=XAVIER, name=name)(x)

    def spatial(self, images: Image, train: bool) -> Wide:
        """(1)."""
        h = images
        for i in range(int(math.log2(self.stride))):
            h = nn.relu(self.conv(h, 3, train, f"spatial{i}", stride=2))
        return nn.relu(self.conv(h, 1, train, "spatial"))

    def context(self, maps: Maps, train: bool) -> list[Array]:
        """(2) and (3), the smallest first."""
        carried, stages = nn.relu(self.linear(mean(maps[-1]), "whole")), []
        for i, x in reversed(list(enumerate(maps))):
            h = nn.relu(self.conv(x, 3, train, f"refine{i}"))
            h = h * nn.sigmoid(self.linear(mean(h), f"attend{i}"))
            h = h + (carried if carried.shape[1] == 1 else resized(carried, h.shape[1:3]))
            carried = nn.relu(self.conv(h, 3, train, f"carry{i}"))
            stages.append(carried)
        return stages

    def fused(self, spatial: Image, context: Image, train: bool) -> Image:
        """(4)."""
        f = nn.relu(self.conv(jnp.concatenate([spatial, context], -1), 1, train, "fuse"))
        return f + f * nn.sigmoid(self.linear(nn.relu(self.linear(mean(f), "fuse_in")), "fuse_out"))

    def answer(
        self, x: Image, size: Sequence[int], train: bool, name: str
    ) -> Float[Array, "b h2 w2 {self.classes}"]:
        """Logits of every pixel of the image, in float32."""
        h = nn.relu(self.conv(x, 3, train, f"{name}_conv"))
        logits = Conv(self.classes, 1, kernel_init=XAVIER, name=name)(h.astype(jnp.float32))
        return resized(logits, size)


class HeatMapHead(nn.Module):
    """Transposed convolutions of `width` channels, till a map has 1/stride of the image's side; then a map a point."""

    points: int
    width: int = 64
    stride: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Image, maps: Maps, train: bool) -> Float[Array, "b h2 w2 {self.points}"]:
        side, h, number = images.shape[1] // self.stride, maps[-1], 0
        while h.shape[1] < side:
            h = self.doubled(h, train, f"up{number}")
            number += 1
        h = nn.relu(
            NormalisedConv(self.width, 3, 1, self.dtype, name="last")(resized(h, (side, side)), train)
        )
        return Conv(self.points, 1, kernel_init=nn.initializers.normal(1e-3), name="answer")(
            h.astype(jnp.float32)
        )

    def doubled(self, x: Image, train: bool, name: str) -> Wide:
        """At twice the size."""
        norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=f"{name}_norm")
        return nn.relu(norm(Doubling(self.width, self.dtype, name=name)(x)))


class Doubling(nn.Module):
    """A transposed convolution, 4 x 4 with stride 2 and no bias, to exactly twice the size.

    Written as the four convolutions of 2 x 2 that its even and odd rows and columns are, which CPUs compute many times
    as fast: kernel[i, j, :, (2a + b) features + f] is that of tap (3 - 2i - a, 3 - 2j - b) of the whole one.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b 2*h 2*w {self.features}"]:
        h, w, c = x.shape[1:]
        kernel = self.param("kernel", XAVIER, (2, 2, c, 4 * self.features), jnp.float32)
        layout = ("NHWC", "HWIO", "NHWC")
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=layout)
        parts = jnp.split(y, 4, -1)  # [b, h + 1, w + 1, features], of (a, b) = (0, 0), (0, 1), (1, 0), (1, 1)
        phases = [part[:, i // 2 : i // 2 + h, i % 2 : i % 2 + w] for i, part in enumerate(parts)]
        return depth_to_space(jnp.concatenate(phases, -1), 2)


def mean(x: Image) -> Float[Array, "b 1 1 c"]:
    """Over all pixels, in float32 on the way."""
    return x.astype(jnp.float32).mean((1, 2), keepdims=True).astype(x.dtype)


def resized(x: Image, size: Sequence[int]) -> Float[Array, "b h2 w2 c"]:
    """Linearly, to another size; smoothed where it shrinks."""
    shape = (len(x), *size, x.shape[-1])
    return x if x.shape == shape else jax.image.resize(x, shape, "linear")
