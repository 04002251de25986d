"""The reader of public DiT weights: where each array goes, and what it says of files that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn import dit_weights
from soda_jax.nn.dit import DiT, places

NET = DiT(width=8, depth=2, heads=2, patch=2, out_channels=3, class_count=4, learn_sigma=True)


def state(net=NET, **changes):
    """Random arrays of the true shapes, under the public names; None takes one away."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, _, shape in dit_weights.layout(net)}
    arrays["pos_embed"] = np.asarray(places(4, 4, net.width))[None]
    arrays |= {name.replace("__", "."): x for name, x in changes.items()}
    return {name: x for name, x in arrays.items() if x is not None}


def test_every_parameter_of_the_network_has_its_array():
    params = dit_weights.dit_params(state(), NET)
    wanted = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, wanted)
    assert dit_weights.network(state(), heads=2) == NET


def test_a_net_without_classes_and_sigma_is_told_from_its_shapes():
    plain = NET.clone(class_count=0, learn_sigma=False)
    assert dit_weights.network(state(plain), heads=2) == plain
    assert "class" not in dit_weights.dit_params(state(plain), plain)


def test_arrays_lie_where_their_names_say():
    """A product a layer: blocks are counted from 0 there, from 1 here; the convolution of a patch is a matrix."""
    arrays = state()
    params = dit_weights.dit_params(arrays, NET)
    np.testing.assert_array_equal(
        params["block_2"]["attention"]["qkv"]["kernel"].T, arrays["blocks.1.attn.qkv.weight"]
    )
    np.testing.assert_array_equal(params["block_1"]["mlp1"]["kernel"].T, arrays["blocks.0.mlp.fc2.weight"])
    np.testing.assert_array_equal(params["class"]["embedding"], arrays["y_embedder.embedding_table.weight"])
    patch = np.random.default_rng(1).normal(size=(2, 2, 3)).astype(np.float32)
    expected = np.einsum("dcpq,pqc->d", arrays["x_embedder.proj.weight"], patch)
    np.testing.assert_allclose(patch.reshape(-1) @ params["embed"]["kernel"], expected, rtol=1e-5)


def test_the_null_class_joins_the_time_and_sigma_is_left_out():
    params = dit_weights.dit_params(state(), NET)
    net, less = dit_weights.without_classes(NET, params)
    x, t = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 4, 3)), jnp.float32), jnp.array([0.2, 0.7])
    expected, features = jax.jit(NET.apply)({"params": params}, x, t)
    found, others = jax.jit(net.apply)({"params": less}, x, t)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert features.keys() - others.keys() == {"sigma"} and "class" in params


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks__1__mlp__fc1__bias": None}, r"small\.pt has no 'blocks\.1\.mlp\.fc1\.bias'"),
        (
            {"y_embedder__embedding_table__weight": np.zeros((5, 7))},
            r"embedding_table.* \[5, 7\], expected \[5, 8\]",
        ),
        (
            {"blocks__0__attn__qkv__weight": np.zeros((8, 24))},
            r"'blocks\.0\.attn\.qkv\.weight' has shape \[8, 24\]",
        ),
        (
            {"blocks__0__attn__q_norm__weight": np.zeros(4)},
            r"holds 'blocks\.0\.attn\.q_norm\.weight', which this",
        ),
        ({"blocks__7__mlp__fc1__bias": np.zeros(32)}, r"has no 'blocks\.2\.adaLN_modulation\.1\.weight'"),
        ({"pos_embed": np.zeros((1, 16, 8))}, r"'pos_embed' \[1, 16, 8\] is not the fixed sines and cosines"),
        ({"pos_embed": np.zeros((1, 15, 8))}, r"'pos_embed' \[1, 15, 8\] is not the fixed"),
        (
            {"x_embedder__proj__weight": None},
            r"has no 'x_embedder\.proj\.weight'.*give the state_dict of a DiT",
        ),
        ({"x_embedder__proj__weight": np.zeros((8, 12))}, r"'x_embedder\.proj\.weight' has shape \[8, 12\]"),
    ],
)
def test_a_file_that_does_not_fit_is_told_by_key(changes, words):
    arrays = state(**changes)
    with pytest.raises(ValueError, match=words) as error:
        dit_weights.dit_params(arrays, dit_weights.network(arrays, 2, "small.pt"), "small.pt")
    assert "\n" not in str(error.value)


def test_heads_of_an_unknown_size_must_be_given():
    with pytest.raises(ValueError, match="width 8 and depth 2 has how many heads"):
        dit_weights.network(state())
