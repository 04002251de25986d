"""Attention over tokens (arXiv 1706.03762): softmax(q k^T / sqrt(c)) v, softmax in float32."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Tokens = Float[Array, "b n c"]
Context = Float[Array, "b m e"]  # tokens that others attend to


class SelfAttention(nn.Module):
    """Multi-head self-attention with input and output projections. ValueError if heads do not divide c."""

    heads: int
    kernel_init: Any
    dtype: Any = jnp.float32
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        b, n, c = x.shape
        check_heads(self.heads, c)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init)
        qkv = dense(3 * c, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.heads, c // self.heads), 2, 0)
        return dense(c, name="out")(attend(q, k, v).reshape(b, n, c))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens x to the tokens of a context, which may be more or fewer, and of another width.

    ValueError if heads do not divide c. A context of zeros gives every token of x the same, the bias of `out`. Keys
    and values have no bias: the softmax takes no notice of the one, and the other would be that of `out` again.
    """

    heads: int
    kernel_init: Any
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, context: Context) -> Tokens:
        b, n, c = x.shape
        check_heads(self.heads, c)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        q = dense(c, name="q")(x).reshape(b, n, self.heads, c // self.heads)
        kv = dense(2 * c, use_bias=False, name="kv")(context).reshape(b, -1, 2, self.heads, c // self.heads)
        return dense(c, name="out")(attend(q, kv[:, :, 0], kv[:, :, 1]).reshape(b, n, c))


def check_heads(heads: int, channels: int) -> None:
    """Raise ValueError unless the heads divide the channels."""
    if channels % heads:
        raise ValueError(f"model.heads={heads} must divide the {channels} channels it attends over")


def attend(
    q: Float[Array, "b n g c"], k: Float[Array, "b m g c"], v: Float[Array, "b m g c"]
) -> Float[Array, "b n g c"]:
    """For each head g, a mean of v weighted by the match of q and k."""
    scores = jnp.einsum("bngc,bmgc->bgnm", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bgnm,bmgc->bngc", weights, v)
