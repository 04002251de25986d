"""Self-attention: a mean weighted by the softmax of matches, in float32 also for bfloat16 compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.attention import SelfAttention, attend
from soda_jax.nn.conv import FAN_IN
from tests.arrays import normal, random_variables


def test_attention_is_the_formula():
    q, k, v = (normal(2, 5, 3, 4, seed=i) for i in range(3))
    out = attend(q, k, v)
    q, k, v = (np.array(x) for x in (q, k, v))
    for head in range(3):
        scores = np.einsum("bnc,bmc->bnm", q[:, :, head], k[:, :, head]) / 2
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        np.testing.assert_allclose(out[:, :, head], weights @ v[:, :, head], atol=1e-5)


def test_softmax_is_float32_under_bfloat16():
    """Scores 99.0 and 99.1875 round to one bfloat16 (there a step is 0.5); float32 tells them apart."""
    q = jnp.array([16.0, 1.0], jnp.bfloat16).reshape(1, 1, 1, 2) * 2
    k = jnp.array([[4.375, 0.0], [4.375, 0.1328125]], jnp.bfloat16).reshape(1, 2, 1, 2)
    v = jnp.array([0.0, 1.0], jnp.bfloat16).reshape(1, 2, 1, 1)
    scores = np.float64(k[0, :, 0]) @ np.float64(q[0, 0, 0]) / np.sqrt(2)
    assert jnp.bfloat16(scores[0]) == jnp.bfloat16(scores[1])
    values = attend(q, k, jnp.concatenate([v, v], -1))
    assert float(values[0, 0, 0, 0]) == pytest.approx(1 / (1 + np.exp(scores[0] - scores[1])), abs=0.005)


def test_order_of_tokens_does_not_matter():
    layer = SelfAttention(2, FAN_IN)
    x, order = normal(2, 6, 8), np.array([3, 1, 5, 0, 2, 4])
    variables = random_variables(layer, x)
    np.testing.assert_allclose(
        layer.apply(variables, x[:, order]), layer.apply(variables, x)[:, order], atol=1e-5
    )


def test_heads_must_divide_the_channels(key):
    with pytest.raises(ValueError, match=r"model\.heads=3 must divide the 8 channels"):
        jax.eval_shape(SelfAttention(3, FAN_IN).init, key, jnp.ones((1, 2, 8)))
