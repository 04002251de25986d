"""Wide residual networks for small images (arXiv 1605.07146): pre-activation blocks of two 3x3 convolutions.

    a = relu(norm(x));   y = conv(relu(norm(conv(a))));   x' = y + x                                     (1)
    where size or channels change:                        x' = y + shortcut(a),  1x1                     (2)

Three stages of n blocks, 16 k, 32 k and 64 k channels wide, each but the first at half the resolution: WRN-d-k has
d = 6 n + 4. Kernels start as in He et al. (arXiv 1502.01852), by their fan-out.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice
from soda_jax.nn.conv import HE, Conv
from soda_jax.nn.resnet import XAVIER, batch_norm
from soda_jax.types import Features, Image

STEMS = {"small": 1, "strided": 2}  # stride of its 3x3 convolution
FIRST = 16  # channels of the stem


class PreActivationBlock(nn.Module):
    """(1) or (2)."""

    features: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, train: bool) -> Float[Array, "b h2 w2 {self.features}"]:
        def conv(h: Image, name: str, kernel: int, stride: int) -> Float[Array, "b _ _ _"]:
            return Conv(self.features, kernel, stride, self.dtype, HE, use_bias=False, name=name)(h)

        a = nn.relu(batch_norm(train, self.dtype, name="norm0")(x))
        h = conv(a, "conv0", 3, self.stride)
        h = conv(nn.relu(batch_norm(train, self.dtype, name="norm1")(h)), "conv1", 3, 1)
        return h + (x if x.shape == h.shape else conv(a, "shortcut", 1, self.stride))


class WideResNet(nn.Module):
    """WRN-depth-widen. Stems, all 3x3: "small" of stride 1, as published, and "strided" of stride 2.

    Returns z [b, latent_dim] and every named activation: "stem", "stage1/block1", ..., "last" (64 widen channels, after
    the last BatchNorm and ReLU), "pooled" and "z", the last two in float32. ValueError for a depth that is not 6 n + 4,
    a widening below 1 or an unknown stem.
    """

    depth: int
    widen: int
    latent_dim: int
    stem: str = "small"
    dtype: Any = jnp.float32

    @property
    def last_map(self) -> str:
        """The activation that is pooled."""
        return "last"

    @property
    def pyramid(self) -> tuple[str, ...]:
        """The activations that dense heads look at: the end of the second stage, and the last."""
        return f"stage2/block{self.depth // 6}", self.last_map

    @nn.compact
    def __call__(
        self, images: Image, train: bool = False
    ) -> tuple[Float[Array, "b {self.latent_dim}"], Features]:
        if self.depth < 10 or self.depth % 6 != 4 or self.widen < 1:
            found = f"wrn_{self.depth}_{self.widen}"
            raise ValueError(
                f"model.encoder={found!r}: the depth must be 10, 16, 22, 28, ..., the widening 1 or more"
            )
        check_choice("model.stem", self.stem, list(STEMS))
        h = Conv(FIRST, 3, STEMS[self.stem], self.dtype, HE, use_bias=False, name="stem")(images)
        features = {"stem": h} | self.stages(h, train)
        last = list(features.values())[-1]
        features["last"] = nn.relu(batch_norm(train, self.dtype, name="last")(last))
        features["pooled"] = features["last"].astype(jnp.float32).mean((1, 2))
        head = nn.Dense(self.latent_dim, kernel_init=XAVIER, name="head")
        features["z"] = head(features["pooled"])
        return features["z"], features

    def stages(self, h: Image, train: bool) -> Features:
        """The blocks."""
        features = {}
        for stage in range(3):
            for block in range(self.depth // 6):
                width, stride = FIRST * 2**stage * self.widen, 2 if stage and not block else 1
                layer = PreActivationBlock(
                    width, stride, self.dtype, name=f"stage{stage + 1}_block{block + 1}"
                )
                features[f"stage{stage + 1}/block{block + 1}"] = h = layer(h, train)
        return features
