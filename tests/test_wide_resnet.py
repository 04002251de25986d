"""Wide residual networks: published sizes, the seam of encoders, the block's two forms, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.wide_resnet import PreActivationBlock, WideResNet
from tests.arrays import normal, random_variables

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def abstract(net):
    """Shapes of ((z, features), variables) without computing."""
    return jax.eval_shape(net.init_with_output, jax.random.key(0), IMAGES)


@pytest.mark.parametrize(("depth", "widen", "count"), [(28, 2, 1_467_610), (28, 10, 36_479_194)])
def test_parameter_counts_are_the_published_ones(depth, widen, count):
    """With 10 outputs, as the classifiers of the paper (1.5 and 36.5 million)."""
    _, variables = abstract(WideResNet(depth, widen, 10))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize(("stem", "first"), [("small", 32), ("strided", 16)])
def test_maps_halve_at_the_second_and_third_stage(stem, first):
    (_, features), _ = abstract(WideResNet(10, 2, 6, stem=stem))
    found = {name: features[name].shape[1:] for name in ("stem", "stage2/block1", "last")}
    half, quarter = first // 2, first // 4
    assert found == {
        "stem": (first, first, 16),
        "stage2/block1": (half, half, 64),
        "last": (quarter, quarter, 128),
    }


def test_features_are_named_and_the_last_map_is_pooled():
    net, images = WideResNet(10, 1, 5, stem="strided"), normal(2, 16, 16, 3)
    variables = random_variables(net, images)
    z, features = jax.tree.map(np.array, jax.jit(net.apply)(variables, images))
    assert set(features) == {f"stage{s}/block1" for s in (1, 2, 3)} | {"stem", "last", "pooled", "z"}
    np.testing.assert_allclose(features["pooled"], features[net.last_map].mean((1, 2)), rtol=1e-5)
    head = jax.tree.map(np.array, variables["params"]["head"])
    np.testing.assert_allclose(z, features["pooled"] @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5)
    assert features["last"].min() == 0 and np.std(z, axis=0).min() > 0


def test_a_branch_of_zeros_passes_the_image_on_as_it_is():
    """Negative values too: nothing stands after the sum."""
    block, x = PreActivationBlock(4, 1), normal(2, 6, 6, 4)
    variables = random_variables(block, x, train=False)
    assert "shortcut" not in variables["params"]
    variables["params"]["conv1"]["kernel"] *= 0
    np.testing.assert_array_equal(block.apply(variables, x, train=False), x)


def test_a_shortcut_sees_what_the_branch_sees():
    """(2): a convolution of relu(norm(x)), so that images below their mean by far give nothing at all."""
    block, x = PreActivationBlock(6, 2), normal(2, 6, 6, 4) - 100.0
    variables = random_variables(block, x, train=False)
    variables["params"]["norm0"]["scale"] = jnp.ones(4)
    variables["params"]["conv1"]["kernel"] *= 0
    np.testing.assert_array_equal(block.apply(variables, x, train=False), jnp.zeros((2, 3, 3, 6)))
    assert np.abs(block.apply(variables, -x, train=False)).min() > 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": 18}, r"model\.encoder='wrn_18_2': the depth must be 10, 16, 22, 28"),
        ({"depth": 4}, r"model\.encoder='wrn_4_2'"),
        ({"widen": 0}, r"model\.encoder='wrn_10_0'.*the widening 1 or more"),
        ({"stem": "imagenet"}, r"model\.stem='imagenet' is unknown: take one of small, strided"),
    ],
)
def test_what_is_none_is_told_by_key(fields, words):
    with pytest.raises(ValueError, match=words):
        abstract(WideResNet(**{"depth": 10, "widen": 2, "latent_dim": 6, **fields}))
