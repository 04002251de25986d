"""The denoiser: a DDPM U-Net (arXiv 2006.11239) whose blocks are modulated by time and by the sections of z.

Changes that SODA (arXiv 2311.17901) makes: AdaGN (modulation.py), residual sums divided by sqrt(2), truncated
normal initialisation. The optional patch stem folds p x p pixels into channels, so that large images fit
small machines.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.attention import Context, CrossAttention, SelfAttention
from soda_jax.nn.checks import check_choice, check_image_size
from soda_jax.nn.conv import FAN_IN, Conv, depth_to_space, space_to_depth, upsample
from soda_jax.nn.embed import TimeEmbedding
from soda_jax.nn.modulation import AdaGN, Pairing, section_count, section_of_layers
from soda_jax.nn.norm import GroupNorm
from soda_jax.types import Features, Image


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, conv, AdaGN, SiLU, dropout, conv, beside a shortcut; then self-attention if asked for.

    `time` [b, n] and `z` [b, d] steer the second norm; z None means that there is no latent. `rescale`
    divides each residual sum by sqrt(2), which keeps the variance of the sum that of its terms. A block that attends
    and is given a context attends to that, too, after itself.
    """

    features: int
    attend: bool = False
    heads: int = 1
    groups: int = 32
    dropout: float = 0.0
    rescale: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Image,
        time: Float[Array, "b n"],
        z: Float[Array, "b d"] | None = None,
        train: bool = False,
        context: Context | None = None,
    ) -> Float[Array, "b h w {self.features}"]:
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="norm0")(x))
        h = Conv(self.features, dtype=self.dtype, name="conv0")(h)
        h = nn.silu(AdaGN(self.groups, self.dtype, name="norm1")(h, time, z))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(self.features, dtype=self.dtype, name="conv1")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel=1, dtype=self.dtype, name="shortcut")(x)
        x = self.add(x, h)
        x = self.add(x, self.attention(x)) if self.attend else x
        return self.add(x, self.cross_attention(x, context)) if self.attend and context is not None else x

    def add(self, x: Image, h: Image) -> Image:
        """The residual sum."""
        return (x + h) * math.sqrt(0.5) if self.rescale else x + h

    def attention(self, x: Image) -> Image:
        """Self-attention over the pixels of the normalised image."""
        b, h, w, c = x.shape
        tokens = GroupNorm(self.groups, dtype=self.dtype, name="attention_norm")(x).reshape(b, h * w, c)
        return SelfAttention(self.heads, FAN_IN, self.dtype, name="attention")(tokens).reshape(b, h, w, c)

    def cross_attention(self, x: Image, context: Context) -> Image:
        """Attention of the pixels of the normalised image to the normalised tokens of the context."""
        b, h, w, c = x.shape
        norm = GroupNorm(self.groups, dtype=self.dtype, name="cross_attention_norm")
        tokens = nn.LayerNorm(dtype=self.dtype, name="context_norm")(context)
        layer = CrossAttention(self.heads, FAN_IN, self.dtype, name="cross_attention")
        return layer(norm(x).reshape(b, h * w, c), tokens).reshape(b, h, w, c)


# (name, h, features, attend, section) -> h: `UNet.block` with time, z, train and context filled in
Run = Callable[..., Array]


class UNet(nn.Module):
    """eps, x0 or v from (xt, t, z, context); see `modulation.py` for which section of z steers which block.

    Level l works at 1 / (patch * 2^l) of the image's size with channels * multipliers[l] features. Features
    are named by level and order: "down/0/conv" (the first convolution; from level 1 on the strided one),
    "down/0/block0", ..., "middle", "up/1/block0", ..., "up/0/conv" (after the upsampling), "up/0/block0", ...
    The way up has one block more.
    """

    out_channels: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2  # residual blocks of each level on the way down
    attention: tuple[bool, ...] = (False, True, False, False)  # for each level; the middle always attends
    cross_attention: bool = False  # blocks that attend also attend to the context
    heads: int = 1
    groups: int = 32
    dropout: float = 0.1
    patch: int = 1
    grouping: str = "per_skip"
    residual_rescale: bool = True
    dtype: Any = jnp.float32
    remat: str = "none"  # "blocks": the backward pass computes each block again

    @property
    def sections(self) -> int:
        """How many sections z must have."""
        return section_count(len(self.multipliers), self.blocks, self.grouping)

    @property
    def pairing(self) -> Pairing:
        """Which section steers which block."""
        return section_of_layers(len(self.multipliers), self.blocks, self.grouping)

    @nn.compact
    def __call__(
        self,
        xt: Image,
        t: Float[Array, " b"],
        z: Float[Array, "b s d"] | None = None,
        train: bool = False,
        context: Context | None = None,
    ) -> tuple[Float[Array, "b h w {self.out_channels}"], Features]:
        """Predict in float32. t in [0, 1]; z None for a network without latent; train switches dropout on.

        xt may have further channels behind those of the image, which are seen and not predicted.
        context: tokens of the sources, which cross-attention asks for; without it they are not looked at.

        ValueError if the image's sides, the sections of z or the attention flags do not fit.
        """
        self.check(*xt.shape[1:3], z)
        time = TimeEmbedding(self.channels, self.dtype, name="time")(t)
        run = partial(self.block, time=time, z=z, train=train, context=self.checked(context))
        features = self.descend(space_to_depth(xt.astype(self.dtype), self.patch), run)
        skips = list(features.values())
        features["middle"] = self.turn(skips[-1], run)
        features |= self.ascend(features["middle"], skips, run)
        return self.project(list(features.values())[-1]), features

    def descend(self, h: Image, run: Run) -> Features:
        """Way down: at each level a convolution and the blocks. All its features are skips, in this order."""
        features, width = {}, self.channels
        for level, multiplier in enumerate(self.multipliers):
            conv = Conv(width, stride=2 if level else 1, dtype=self.dtype, name=f"down_{level}_conv")
            features[f"down/{level}/conv"] = h = conv(h)
            width = self.channels * multiplier
            for i in range(self.blocks):
                section = self.pairing.down[len(features)]
                h = run(f"down_{level}_block{i}", h, width, self.attention[level], section)
                features[f"down/{level}/block{i}"] = h
        return features

    def turn(self, h: Image, run: Run) -> Image:
        """Two blocks at the lowest resolution, attention between them."""
        h = run("middle_block0", h, h.shape[-1], True, self.pairing.middle)
        return run("middle_block1", h, h.shape[-1], False, self.pairing.middle)

    def ascend(self, h: Image, skips: list[Array], run: Run) -> Features:
        """Way up: at each level an upsampling and the blocks, each of which takes the youngest skip left."""
        features, sections, skips = {}, iter(self.pairing.up), list(skips)
        for level in reversed(range(len(self.multipliers))):
            if level < len(self.multipliers) - 1:
                conv = Conv(h.shape[-1], dtype=self.dtype, name=f"up_{level}_conv")
                features[f"up/{level}/conv"] = h = conv(upsample(h))
            width = self.channels * self.multipliers[level]
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = run(f"up_{level}_block{i}", h, width, self.attention[level], next(sections))
                features[f"up/{level}/block{i}"] = h
        return features

    def block(
        self,
        name: str,
        h: Image,
        features: int,
        attend: bool,
        section: int,
        time: Array,
        z: Any,
        train: bool,
        context: Any = None,
    ) -> Float[Array, "b h w {features}"]:
        """One residual block under the section of z that is its own."""
        cls = nn.remat(ResidualBlock, static_argnums=(4,)) if self.remat == "blocks" else ResidualBlock
        layer = cls(
            features,
            attend,
            self.heads,
            self.groups,
            self.dropout,
            self.residual_rescale,
            self.dtype,
            name=name,
        )
        return layer(h, time, None if z is None else z[:, section], train, context)

    def project(self, h: Image) -> Float[Array, "b h2 w2 {self.out_channels}"]:
        """To an image; the last convolution starts at zero, so that the first prediction is zero."""
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="out_norm")(h))
        features = self.out_channels * self.patch**2
        conv = Conv(features, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out_conv")
        return depth_to_space(conv(h).astype(jnp.float32), self.patch)

    def checked(self, context: Context | None) -> Context | None:
        """What the blocks attend to. Raises ValueError where that is not there."""
        if not self.cross_attention:
            return None
        if context is None:
            raise ValueError(
                "model.cross_attention=True: the denoiser attends to the sources as well, and was given none"
            )
        return context.astype(self.dtype)

    def check(self, height: int, width: int, z: Float[Array, "b s d"] | None) -> None:
        """Raise ValueError for what does not fit, before anything is computed."""
        levels = len(self.multipliers)
        check_choice("model.remat", self.remat, ("none", "blocks"))
        check_image_size(height, width, self.patch, levels)
        if len(self.attention) != levels:
            raise ValueError(
                f"model.attention has {len(self.attention)} entries; model.multipliers asks for {levels}"
            )
        if z is not None and z.shape[1] != self.sections:
            raise ValueError(
                f"z has {z.shape[1]} sections; model.grouping={self.grouping!r} needs {self.sections}"
            )
