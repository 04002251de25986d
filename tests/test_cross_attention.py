"""Attention to the tokens of the sources: the formula, where it stands in the U-Net, and what it must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.attention import CrossAttention
from soda_jax.nn.conv import FAN_IN
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.unet import UNet
from soda_jax.nn.vit import ViT
from tests.arrays import normal, random_variables

NET = UNet(channels=4, multipliers=(1, 2), blocks=1, attention=(False, True), groups=2, cross_attention=True)
XT, T, CONTEXT = normal(2, 4, 4, 3), jnp.array([0.2, 0.9]), normal(2, 5, 6, seed=3)
Z = normal(2, NET.sections, 3, seed=1)


def test_it_is_the_formula():
    x, context, layer = normal(2, 5, 8), normal(2, 7, 3, seed=1), CrossAttention(2, FAN_IN)
    variables = random_variables(layer, x, context)
    p = jax.tree.map(np.asarray, variables["params"])
    q, kv = np.asarray(x) @ p["q"]["kernel"], np.asarray(context) @ p["kv"]["kernel"]
    q, kv = (q + p["q"]["bias"]).reshape(2, 5, 2, 4), kv.reshape(2, 7, 2, 2, 4)
    scores = np.exp(np.einsum("bngc,bmgc->bgnm", q, kv[:, :, 0]) / 2)
    weights = scores / scores.sum(-1, keepdims=True)
    mixed = np.einsum("bgnm,bmgc->bngc", weights, kv[:, :, 1]).reshape(2, 5, 8)
    expected = mixed @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(layer.apply(variables, x, context), expected, atol=1e-5)


def test_heads_must_divide_the_channels(key):
    with pytest.raises(ValueError, match=r"model\.heads=3 must divide the 8 channels"):
        jax.eval_shape(CrossAttention(3, FAN_IN).init, key, jnp.ones((1, 2, 8)), jnp.ones((1, 2, 3)))


@pytest.fixture(scope="module")
def variables():
    return random_variables(NET, XT, T, Z, context=CONTEXT)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda variables, context: NET.apply(variables, XT, T, Z, context=context)[0])


def test_it_stands_where_self_attention_does_and_adds_nothing_else(variables):
    params = variables["params"]
    added = {"cross_attention", "cross_attention_norm", "context_norm"}
    crossing = {name for name, layer in params.items() if "cross_attention" in layer}
    assert crossing == {name for name, layer in params.items() if "attention" in layer}
    assert crossing == {"down_1_block0", "middle_block0", "up_1_block0", "up_1_block1"}
    plain = random_variables(NET.clone(cross_attention=False), XT, T, Z)["params"]
    rest = {
        name: {k: v for k, v in layer.items() if not (name in crossing and k in added)}
        for name, layer in params.items()
    }
    assert jax.tree.map(jnp.shape, rest) == jax.tree.map(jnp.shape, plain)


def test_every_token_counts_wherever_it_stands(variables, apply):
    out = np.asarray(apply(variables, CONTEXT))
    np.testing.assert_allclose(apply(variables, CONTEXT[:, ::-1]), out, atol=1e-4)
    for i in range(5):
        other = apply(variables, CONTEXT.at[:, i].add(normal(6, seed=9)))
        assert np.abs(other - out).max((1, 2, 3)).min() > 1e-5
    swapped = apply(variables, CONTEXT[::-1])
    assert np.abs(swapped - out).max() > 1e-3


def test_without_tokens_it_says_so(variables):
    with pytest.raises(ValueError, match=r"model\.cross_attention=True: .* was given none"):
        jax.eval_shape(lambda: NET.apply(variables, XT, T, Z))


@pytest.mark.parametrize(
    ("encoder", "name", "shape"),
    [
        (ResNet(18, 6, width=2), "stage4/block2", (1, 1, 1, 16)),
        (ResNet(50, 6, width=2), "stage4/block3", (1, 1, 1, 64)),
        (ViT("Ti", 6, patch=8), "block12", (1, 16, 192)),
    ],
)
def test_encoders_name_the_map_that_they_pool(encoder, name, shape):
    shapes = jax.eval_shape(encoder.init_with_output, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert encoder.last_map == name and shapes[0][1][name].shape == shape
