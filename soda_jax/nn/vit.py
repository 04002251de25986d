"""Vision transformer encoders (arXiv 2010.11929): pre-norm, fixed position embedding, mean pooling."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.attention import SelfAttention, Tokens
from soda_jax.nn.checks import check_choice, check_patch
from soda_jax.nn.conv import space_to_depth
from soda_jax.nn.embed import position_embedding
from soda_jax.nn.resnet import XAVIER
from soda_jax.types import Features, Image


class Size(NamedTuple):
    """Width of the tokens, number of blocks, attention heads."""

    width: int
    depth: int
    heads: int


SIZES = {"Ti": Size(192, 12, 3), "S": Size(384, 12, 6), "B": Size(768, 12, 12)}


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with a four times wider hidden layer."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        h = nn.LayerNorm(dtype=self.dtype, name="norm0")(x)
        x = x + SelfAttention(self.heads, XAVIER, self.dtype, name="attention")(h)
        h = nn.LayerNorm(dtype=self.dtype, name="norm1")(x)
        h = nn.Dense(4 * x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="mlp0")(h)
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="mlp1")(nn.gelu(h))


class ViT(nn.Module):
    """ViT-Ti, S or B. Returns z [b, latent_dim] and named activations: "stem", "block1", ..., "pooled", "z".

    "pooled" is the mean of the tokens after the last norm; it and z are float32. ValueError for an unknown
    variant and for images whose sides the patch does not divide. `train` changes nothing; it is there for the
    encoders' contract.
    """

    variant: str
    latent_dim: int
    patch: int = 8
    dtype: Any = jnp.float32

    @property
    def last_map(self) -> str:
        """The activation that is pooled, once normalised."""
        return f"block{SIZES[self.variant].depth}"

    @property
    def pyramid(self) -> tuple[str, ...]:
        """The activations that dense heads look at: those of two thirds of the way, and the last."""
        return f"block{SIZES[self.variant].depth * 2 // 3}", self.last_map

    @nn.compact
    def __call__(
        self, images: Image, train: bool = False
    ) -> tuple[Float[Array, "b {self.latent_dim}"], Features]:
        check_choice("model.encoder", f"vit_{self.variant}", [f"vit_{name}" for name in SIZES])
        check_patch(*images.shape[1:3], self.patch)
        size = SIZES[self.variant]
        h = self.tokens(images, size.width)
        features = {"stem": h}
        for i in range(size.depth):
            h = TransformerBlock(size.heads, self.dtype, name=f"block{i + 1}")(h)
            features[f"block{i + 1}"] = h
        features["pooled"] = nn.LayerNorm(name="norm")(h).mean(1)
        features["z"] = nn.Dense(self.latent_dim, kernel_init=XAVIER, name="head")(features["pooled"])
        return features["z"], features

    def tokens(self, images: Image, width: int) -> Float[Array, "b n {width}"]:
        """One token a patch, its place added."""
        grid = space_to_depth(images.astype(self.dtype), self.patch)
        b, h, w, c = grid.shape
        dense = nn.Dense(width, dtype=self.dtype, kernel_init=XAVIER, name="embed")
        places = position_embedding(h, w, width).astype(self.dtype)
        return dense(grid.reshape(b, h * w, c)) + places[None]
