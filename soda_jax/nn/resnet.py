"""ResNet encoders (arXiv 1512.03385): an image becomes the latent z and pooled features.

Block and stage layout are those of the common "v1.5": post-activation, the stride on the 3x3 convolution.
Xavier initialisation as in SODA (arXiv 2311.17901).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice
from soda_jax.nn.conv import Conv, max_pool
from soda_jax.types import Features, Image

# blocks of each stage
STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STEMS = {"imagenet": (7, 2), "small": (3, 1), "strided": (3, 2)}  # kernel and stride
XAVIER = nn.initializers.xavier_uniform()


class NormalisedConv(nn.Module):
    """Convolution without bias, then BatchNorm with float32 statistics (running mean: 0.9 old + 0.1 new).

    `gain` is what BatchNorm's learned scale starts at; `depthwise`: see `Conv`.
    """

    features: int
    kernel: int
    stride: int = 1
    dtype: Any = jnp.float32
    gain: float = 1.0
    kernel_init: Any = XAVIER
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Image, train: bool) -> Float[Array, "b h2 w2 {self.features}"]:
        sizes = (self.features, self.kernel, self.stride, self.dtype, self.kernel_init)
        conv = Conv(*sizes, use_bias=False, depthwise=self.depthwise, name="conv")
        return batch_norm(train, self.dtype, self.gain)(conv(x))


def batch_norm(
    train: bool, dtype: Any, gain: float = 1.0, name: str = "norm", affine: bool = True
) -> nn.BatchNorm:
    """The BatchNorm of all encoders, for use inside a compact module. affine: with a learned scale and bias."""
    fields = {"momentum": 0.9, "epsilon": 1e-5, "scale_init": nn.initializers.constant(gain)}
    fields |= {"use_scale": affine, "use_bias": affine}
    return nn.BatchNorm(not train, dtype=dtype, name=name, **fields)


class ResNetBlock(nn.Module):
    """relu(x + f(x)), f two 3x3 convolutions or a 1x1, 3x3, 1x1 bottleneck that ends four times as wide.

    `gain`: the learned scale at the end of f starts there; see `ResNet`.
    """

    width: int
    stride: int
    bottleneck: bool
    dtype: Any = jnp.float32
    gain: float = 1.0

    def layout(self) -> tuple[tuple[int, int, int], ...]:
        """(features, kernel, stride) of each convolution."""
        if self.bottleneck:
            return (self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)
        return (self.width, 3, self.stride), (self.width, 3, 1)

    @nn.compact
    def __call__(self, x: Image, train: bool) -> Float[Array, "b h2 w2 o"]:
        h, last = x, len(self.layout()) - 1
        for i, (features, kernel, stride) in enumerate(self.layout()):
            h = nn.relu(h) if i else h
            gain = self.gain if i == last else 1.0
            h = NormalisedConv(features, kernel, stride, self.dtype, gain, name=f"conv{i}")(h, train)
        if x.shape != h.shape:
            x = NormalisedConv(h.shape[-1], 1, self.stride, self.dtype, name="shortcut")(x, train)
        return nn.relu(x + h)


class ResNet(nn.Module):
    """ResNet encoder. Stems: "imagenet" 7x7 / 2 and max-pool, "small" 3x3 / 1, "strided" 3x3 / 2.

    `residual_gain` is what the learned scale at the end of each residual branch starts at: 1, or less, so that the
    network starts shallow (0 in arXiv 1706.02677) and tells more of the image before it has learned anything.
    `pooled_norm`: a BatchNorm without scale and bias before the head, so that z varies with every pooled channel alike:
    a mean over places behind a ReLU is mostly a constant, and what sets images apart is small beside it.
    Returns z [b, latent_dim] and every named activation: "stem", "stage1/block1", ..., "pooled" [b, n] and
    "z", the last two in float32. ValueError for an unknown depth or stem, or a gain outside 0..1.
    """

    depth: int
    latent_dim: int
    width: int = 64
    stem: str = "imagenet"
    residual_gain: float = 1.0
    pooled_norm: bool = False
    dtype: Any = jnp.float32

    @property
    def last_map(self) -> str:
        """The activation that is pooled."""
        return f"stage4/block{STAGES[self.depth][-1]}"

    @property
    def pyramid(self) -> tuple[str, ...]:
        """The activations that dense heads look at, the largest first: the ends of the last two stages."""
        return f"stage3/block{STAGES[self.depth][-2]}", self.last_map

    @nn.compact
    def __call__(
        self, images: Image, train: bool = False
    ) -> tuple[Float[Array, "b {self.latent_dim}"], Features]:
        check_choice("model.encoder", f"resnet{self.depth}", [f"resnet{depth}" for depth in STAGES])
        check_choice("model.stem", self.stem, list(STEMS))
        if not 0 <= self.residual_gain <= 1:
            raise ValueError(f"model.residual_gain must be 0 to 1, found {self.residual_gain}")
        h = self.enter(images, train)
        features = {"stem": h} | self.stages(h, train)
        features["pooled"] = h = list(features.values())[-1].astype(jnp.float32).mean((1, 2))
        if self.pooled_norm:
            h = batch_norm(train, jnp.float32, name="pooled_norm", affine=False)(h)
        features["z"] = nn.Dense(self.latent_dim, kernel_init=XAVIER, name="head")(h)
        return features["z"], features

    def enter(self, images: Image, train: bool) -> Float[Array, "b h2 w2 {self.width}"]:
        """The stem."""
        kernel, stride = STEMS[self.stem]
        h = nn.relu(NormalisedConv(self.width, kernel, stride, self.dtype, name="stem")(images, train))
        return max_pool(h) if self.stem == "imagenet" else h

    def stages(self, h: Image, train: bool) -> Features:
        """Four stages, each but the first at half the resolution and twice the width of the one before."""
        features = {}
        for stage, blocks in enumerate(STAGES[self.depth]):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layer = ResNetBlock(
                    self.width * 2**stage,
                    stride,
                    bottleneck=self.depth >= 50,
                    dtype=self.dtype,
                    gain=self.residual_gain,
                    name=f"stage{stage + 1}_block{block + 1}",
                )
                features[f"stage{stage + 1}/block{block + 1}"] = h = layer(h, train)
        return features
