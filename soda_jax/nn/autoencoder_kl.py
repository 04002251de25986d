"""The autoencoder of latent diffusion (arXiv 2112.10752), whose latents Stable Diffusion and DiT work on.

    mean, log var = encoder(x),   z = scale (mean + exp(log var / 2) eps),  eps ~ N(0, I)        (1)
    x^ = decoder(z / scale)                                                                       (2)
    block:   x + conv(SiLU(GN(conv(SiLU(GN(x))))))                                                (3)

Level l of L works at 1 / 2^l of the image's size with channels * multipliers[l] features, so that z has 1 / 2^(L - 1)
of its sides; the lowest level has a middle of two blocks with one head of attention between them. Down: a strided
convolution that is padded at the end alone; up: nearest neighbours, then a convolution.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from soda_jax.nn.attention import SelfAttention
from soda_jax.nn.checks import check_patch
from soda_jax.nn.conv import FAN_IN, Conv, upsample
from soda_jax.nn.norm import GroupNorm
from soda_jax.types import Image, Tree

EPSILON = 1e-6  # of all norms
Maps = Float[Array, "b h2 w2 d"]  # of latents: their log var, or z
LOW, HIGH = -30.0, 20.0  # log var is kept within


class Block(nn.Module):
    """(3); a convolution of one pixel stands before the sum where the features change."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h w {self.features}"]:
        norm = partial(GroupNorm, dtype=self.dtype, epsilon=EPSILON)
        h = Conv(self.features, dtype=self.dtype, name="conv0")(nn.silu(norm(name="norm0")(x)))
        h = Conv(self.features, dtype=self.dtype, name="conv1")(nn.silu(norm(name="norm1")(h)))
        if x.shape[-1] != self.features:
            x = Conv(self.features, kernel=1, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """x + attention(GN(x)) over all pixels, one head."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        b, h, w, c = x.shape
        tokens = GroupNorm(dtype=self.dtype, epsilon=EPSILON, name="norm")(x).reshape(b, h * w, c)
        layer = SelfAttention(1, FAN_IN, self.dtype, name="attention")
        return x + layer(tokens).reshape(b, h, w, c)


class Sized(nn.Module):
    """What encoder and decoder have in common."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2  # of each level of the encoder; the decoder has one more
    image_channels: int = 3
    latent_channels: int = 4
    dtype: Any = jnp.float32

    def widths(self) -> list[int]:
        """Features of each level, the finest first."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    def middle(self, h: Image) -> Image:
        """Of the lowest level."""
        h = Block(h.shape[-1], self.dtype, name="middle_block0")(h)
        h = Attention(self.dtype, name="middle_attention")(h)
        return Block(h.shape[-1], self.dtype, name="middle_block1")(h)

    def project(self, h: Image, features: int) -> Float[Array, "b h w {features}"]:
        """GN, SiLU, convolution."""
        h = nn.silu(GroupNorm(dtype=self.dtype, epsilon=EPSILON, name="out_norm")(h))
        return Conv(features, dtype=self.dtype, name="out_conv")(h)

    def level(self, h: Image, name: str, width: int, blocks: int) -> Float[Array, "b h w {width}"]:
        """The blocks of one."""
        for i in range(blocks):
            h = Block(width, self.dtype, name=f"{name}_block{i}")(h)
        return h


class Encoder(Sized):
    """Images in [-1, 1] to mean and log var, both [b, h / 2^(L - 1), .., latent_channels], float32."""

    @nn.compact
    def __call__(self, x: Image) -> tuple[Maps, Maps]:
        """ValueError for sides that cannot be halved so often."""
        check_patch(
            *x.shape[1:3], 2 ** (len(self.multipliers) - 1), "images to encode", "2^(levels - 1) of the VAE"
        )
        h = Conv(self.channels, dtype=self.dtype, name="first")(x)
        for level, width in enumerate(self.widths()):
            h = halved(h, level, self.dtype) if level else h
            h = self.level(h, f"down_{level}", width, self.blocks)
        h = self.project(self.middle(h), 2 * self.latent_channels)
        h = Conv(2 * self.latent_channels, kernel=1, dtype=self.dtype, name="quant")(h)
        mean, log_var = jnp.split(h.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(log_var, LOW, HIGH)


class Decoder(Sized):
    """z / scale to images, of [-1, 1] by and large, float32."""

    @nn.compact
    def __call__(self, z: Maps) -> Image:
        h = Conv(self.latent_channels, kernel=1, dtype=self.dtype, name="quant")(z)
        h = self.middle(Conv(self.widths()[-1], dtype=self.dtype, name="first")(h))
        for level, width in reversed(list(enumerate(self.widths()))):
            h = self.level(h, f"up_{level}", width, self.blocks + 1)
            if level:
                h = Conv(width, dtype=self.dtype, name=f"up_{level}_resample")(upsample(h))
        return self.project(h, self.image_channels).astype(jnp.float32)


def halved(h: Image, level: int, dtype: Any) -> Float[Array, "b h//2 w//2 c"]:
    """To half the size, before this level; padded at the end alone: of (1, 1) more all but the first windows are so."""
    wide = jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return Conv(h.shape[-1], stride=2, dtype=dtype, name=f"down_{level - 1}_resample")(wide)[:, 1:, 1:]


@dataclass(frozen=True, kw_only=True)
class AutoencoderKL:
    """Both, as pure functions of {"encoder": .., "decoder": ..}; scale: of (1)."""

    encoder: Encoder
    decoder: Decoder
    scale: float = 0.18215

    @property
    def factor(self) -> int:
        """Sides of an image / sides of its latents."""
        return 2 ** (len(self.encoder.multipliers) - 1)

    def init(self, key: Key[Array, ""]) -> Tree:
        """Fresh parameters."""
        keys, side = jax.random.split(key), self.factor
        image = jnp.zeros((1, side, side, self.encoder.image_channels))
        z = jnp.zeros((1, 1, 1, self.decoder.latent_channels))
        nets = {"encoder": (self.encoder, keys[0], image), "decoder": (self.decoder, keys[1], z)}
        return {name: net.init(k, x)["params"] for name, (net, k, x) in nets.items()}

    def moments(self, params: Tree, images: Image) -> tuple[Maps, Maps]:
        """Mean and log var of (1), of images in [-1, 1], before they are scaled."""
        return self.encoder.apply({"params": params["encoder"]}, images)

    def encode(self, params: Tree, images: Image, eps: Maps | None = None) -> Maps:
        """z of (1); eps None: of the mean alone."""
        mean, log_var = self.moments(params, images)
        return self.scale * (mean if eps is None else mean + jnp.exp(log_var / 2) * eps)

    def decode(self, params: Tree, z: Maps) -> Image:
        """(2)"""
        return self.decoder.apply({"params": params["decoder"]}, z / self.scale)
