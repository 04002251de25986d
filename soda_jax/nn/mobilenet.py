"""MobileNetV2 encoders (arXiv 1801.04381): inverted residuals with linear ends, narrow between blocks and wide inside.

    h = relu6(expand x),  1x1, to t times the channels; left out where t is 1                            (1)
    h = relu6(depthwise h),  3x3, one filter a channel, with the block's stride                         (2)
    y = project h,  1x1, linear;   x + y where neither size nor channels change                         (3)

BatchNorm follows each convolution. Channels are multiples of 8: c -> max(8, 8 floor((width c + 4) / 8)), and 8 more
where that is less than 0.9 width c (4); the last map is never narrower than 1280. Kernels start as in He et al.
(arXiv 1502.01852), by their fan-out.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice
from soda_jax.nn.conv import HE
from soda_jax.nn.resnet import XAVIER, NormalisedConv
from soda_jax.types import Features, Image

STEMS = {"imagenet": 2, "small": 1, "strided": 2}  # stride of its 3x3 convolution


class Stage(NamedTuple):
    """Expansion t, channels at width 1, blocks, and the stride of the first of them."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
FIRST, LAST = 32, 1280  # channels of the stem and of the last map


class InvertedResidual(nn.Module):
    """(1) to (3). `gain`: the learned scale at the end of (3) starts there, where x is added."""

    features: int
    stride: int
    expansion: int
    dtype: Any = jnp.float32
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Image, train: bool) -> Float[Array, "b h2 w2 {self.features}"]:
        def conv(h: Image, name: str, features: int, kernel: int, **more: Any) -> Float[Array, "b _ _ _"]:
            layer = NormalisedConv(features, kernel, dtype=self.dtype, kernel_init=HE, name=name, **more)
            return layer(h, train)

        inside = self.expansion * x.shape[-1]
        h = nn.relu6(conv(x, "expand", inside, 1)) if self.expansion > 1 else x
        h = nn.relu6(conv(h, "depthwise", inside, 3, stride=self.stride, depthwise=True))
        if self.stride > 1 or x.shape[-1] != self.features:
            return conv(h, "project", self.features, 1)
        return x + conv(h, "project", self.features, 1, gain=self.gain)


class MobileNetV2(nn.Module):
    """MobileNetV2. Stems, all 3x3: "imagenet" and "strided" of stride 2, "small" of stride 1 (`assumed`).

    `width` multiplies all channels, as in (4); `residual_gain` is as in `ResNet`. Returns z [b, latent_dim] and every
    named activation: "stem", "stage1/block1", ..., "last" (1280 channels, a 32nd of the image's side, a 16th with the
    small stem), "pooled" and "z", the last two in float32. ValueError for an unknown stem, a width that is not above 0
    or a gain outside 0..1.
    """

    latent_dim: int
    width: float = 1.0
    stem: str = "imagenet"
    residual_gain: float = 1.0
    dtype: Any = jnp.float32

    @property
    def last_map(self) -> str:
        """The activation that is pooled."""
        return "last"

    @property
    def pyramid(self) -> tuple[str, ...]:
        """The activations that dense heads look at: the end of the stage before the last halving, and the last."""
        return f"stage5/block{STAGES[4].blocks}", self.last_map

    @property
    def layout(self) -> tuple[Stage, ...]:
        """The stages, at width 1."""
        return STAGES

    @nn.compact
    def __call__(
        self, images: Image, train: bool = False
    ) -> tuple[Float[Array, "b {self.latent_dim}"], Features]:
        self.check()
        fields = {"dtype": self.dtype, "kernel_init": HE}
        first = NormalisedConv(scaled(FIRST, self.width), 3, STEMS[self.stem], name="stem", **fields)
        features = {"stem": nn.relu6(first(images, train))}
        features |= self.stages(features["stem"], train)
        last = NormalisedConv(scaled(LAST, max(self.width, 1.0)), 1, name="last", **fields)
        features["last"] = nn.relu6(last(list(features.values())[-1], train))
        features["pooled"] = features["last"].astype(jnp.float32).mean((1, 2))
        head = nn.Dense(self.latent_dim, kernel_init=XAVIER, name="head")
        features["z"] = head(features["pooled"])
        return features["z"], features

    def check(self) -> None:
        """ValueError, naming the key, for fields that are none."""
        check_choice("model.stem", self.stem, list(STEMS))
        if not self.width > 0:
            raise ValueError(f"model.width_multiplier must be more than 0, found {self.width}")
        if not 0 <= self.residual_gain <= 1:
            raise ValueError(f"model.residual_gain must be 0 to 1, found {self.residual_gain}")

    def stages(self, h: Image, train: bool) -> Features:
        """The inverted residuals."""
        features = {}
        for number, stage in enumerate(self.layout, start=1):
            for block in range(1, stage.blocks + 1):
                stride, channels = stage.stride if block == 1 else 1, scaled(stage.channels, self.width)
                fields = {"dtype": self.dtype, "gain": self.residual_gain}
                layer = InvertedResidual(
                    channels, stride, stage.expansion, **fields, name=f"stage{number}_block{block}"
                )
                features[f"stage{number}/block{block}"] = h = layer(h, train)
        return features


def scaled(channels: int, width: float) -> int:
    """(4)"""
    wanted = channels * width
    found = max(8, int(wanted + 4) // 8 * 8)
    return found + 8 if found < 0.9 * wanted else found
