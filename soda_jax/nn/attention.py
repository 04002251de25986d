"""Self-attention over tokens (arXiv 1706.03762): softmax(q k^T / sqrt(c)) v, softmax in float32."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Tokens = Float[Array, "b n c"]


class SelfAttention(nn.Module):
    """Multi-head self-attention with input and output projections. ValueError if heads do not divide c."""

    heads: int
    kernel_init: Any
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        b, n, c = x.shape
        if c % self.heads:
            raise ValueError(f"model.heads={self.heads} must divide the {c} channels it attends over")
        qkv = nn.Dense(3 * c, dtype=self.dtype, kernel_init=self.kernel_init, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.heads, c // self.heads), 2, 0)
        out = attend(q, k, v).reshape(b, n, c)
        return nn.Dense(c, dtype=self.dtype, kernel_init=self.kernel_init, name="out")(out)


def attend(
    q: Float[Array, "b n g c"], k: Float[Array, "b m g c"], v: Float[Array, "b m g c"]
) -> Float[Array, "b n g c"]:
    """For each head g, a mean of v weighted by the match of q and k."""
    scores = jnp.einsum("bngc,bmgc->bgnm", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bgnm,bmgc->bngc", weights, v)
