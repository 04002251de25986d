"""The U-Net: named features, patch stem, start, dropout, precision, remat, and errors that say what fits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.unet import ResidualBlock, UNet
from tests.arrays import normal, random_variables

SMALL = UNet(channels=4, multipliers=(1, 2), blocks=1, attention=(False, True), groups=2, dropout=0.5)
XT, T = normal(2, 4, 4, 3), jnp.array([0.2, 0.9])
Z = normal(2, SMALL.sections, 3, seed=1)
APPLY = jax.jit(SMALL.apply)
FLOAT32 = {jnp.dtype("float32")}


@pytest.fixture(scope="module")
def variables():
    return random_variables(SMALL, XT, T, Z)


def abstract(net, *inputs):
    """Shapes of ((prediction, features), variables) without computing."""
    return jax.eval_shape(net.init_with_output, jax.random.key(0), *inputs)


def dtypes(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


def image(size, channels=3):
    return jnp.zeros((1, size, size, channels))


def test_features_are_named_by_level_and_order():
    (_, features), _ = abstract(UNet(channels=8), image(32), jnp.ones(1))
    down = {f"down/{level}/{name}" for level in range(4) for name in ("conv", "block0", "block1")}
    up = {f"up/{level}/block{i}" for level in range(4) for i in range(3)} | {f"up/{i}/conv" for i in range(3)}
    assert set(features) == down | up | {"middle"}
    assert features["down/0/block1"].shape == features["up/0/block2"].shape == (1, 32, 32, 8)
    assert features["down/1/conv"].shape == (1, 16, 16, 8) and features["up/2/conv"].shape == (1, 8, 8, 16)
    assert features["down/3/block1"].shape == features["middle"].shape == (1, 4, 4, 16)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patch_stem_folds_the_image_and_unfolds_the_prediction(patch):
    net = SMALL.clone(patch=patch, out_channels=5)
    (prediction, features), _ = abstract(net, image(16), jnp.ones(1))
    assert prediction.shape == (1, 16, 16, 5)
    assert features["down/0/conv"].shape == (1, 16 // patch, 16 // patch, 4)


def test_attention_stands_where_asked_and_in_the_middle():
    _, variables = abstract(SMALL, XT, T)
    attending = {name for name, layer in variables["params"].items() if "attention" in layer}
    assert attending == {"down_1_block0", "middle_block0", "up_1_block0", "up_1_block1"}


def test_without_latent_there_is_no_projection_of_it():
    _, variables = abstract(SMALL, XT, T)
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(variables)}
    assert not [name for name in names if "latent" in name]


def test_first_prediction_is_zero_because_the_last_convolution_is(key):
    params = jax.jit(lambda key: SMALL.init(key, XT, T)["params"]["out_conv"])(key)
    assert not np.any(params["kernel"]) and not np.any(params["bias"])


def test_prediction_depends_on_every_input(variables):
    one = np.array(APPLY(variables, XT, T, Z)[0])
    for other in [(XT + 0.1, T, Z), (XT, T - 0.1, Z), (XT, T, Z + 0.1)]:
        assert abs(APPLY(variables, *other)[0] - one).max((1, 2, 3)).min() > 1e-4


def test_examples_do_not_mix(variables):
    swapped = APPLY(variables, XT[::-1], T[::-1], Z[::-1])[0]
    np.testing.assert_allclose(swapped[::-1], APPLY(variables, XT, T, Z)[0], rtol=1e-4, atol=1e-5)


def test_bfloat16_compute_is_near_and_gives_float32(variables):
    low = SMALL.clone(dtype=jnp.bfloat16)
    (prediction, features), made = abstract(low, XT, T, Z)
    assert dtypes(features) == {jnp.dtype("bfloat16")}
    assert dtypes(made) == dtypes(prediction) == FLOAT32
    difference = jax.jit(low.apply)(variables, XT, T, Z)[0] - APPLY(variables, XT, T, Z)[0]
    assert 0 < np.sqrt(np.mean(np.square(difference))) < 0.05


def test_bfloat16_keeps_norms_and_softmax_in_float32():
    low = SMALL.clone(dtype=jnp.bfloat16)
    program = str(jax.make_jaxpr(low.init_with_output)(jax.random.key(0), XT, T, Z))
    delicate = r"(\w+)\[[\d,]*\] = (exp|rsqrt|reduce_sum|reduce_max|square)\b"
    found = re.findall(delicate, program)
    assert {kind for kind, _ in found} == {"f32"}
    assert {"exp", "rsqrt", "reduce_sum"} <= {name for _, name in found}


def block(rescale=True, dropout=0.0):
    """One residual block of SMALL's size, and variables in which its second convolution gives nothing."""
    layer = ResidualBlock(4, groups=2, dropout=dropout, rescale=rescale)
    variables = random_variables(layer, normal(2, 4, 4, 4), normal(2, 6))
    return layer, variables


@pytest.mark.parametrize(("rescale", "factor"), [(True, 0.5**0.5), (False, 1.0)])
def test_residual_sums_are_divided_by_the_root_of_two(rescale, factor):
    layer, variables = block(rescale)
    silent = jax.tree.map(jnp.zeros_like, variables["params"]["conv1"])
    x = normal(2, 4, 4, 4)
    y = layer.apply({"params": variables["params"] | {"conv1": silent}}, x, normal(2, 6))
    np.testing.assert_allclose(y, factor * x, rtol=1e-6)


def test_dropout_is_on_in_training_alone_and_follows_its_key():
    layer, variables = block(dropout=0.5)

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return layer.apply(variables, normal(2, 4, 4, 4), normal(2, 6), train=True, rngs=rngs)

    evaluated = layer.apply(variables, normal(2, 4, 4, 4), normal(2, 6))
    assert np.array_equal(train(0), train(0))
    assert not np.allclose(train(0), train(1)) and not np.allclose(train(0), evaluated)


def test_recomputing_blocks_changes_no_gradient():
    """Dropout included: the backward pass must draw the same units again."""
    tiny = SMALL.clone(multipliers=(1,), attention=(False,))
    z = normal(2, tiny.sections, 3)
    variables = random_variables(tiny, XT, T, z)

    def gradient(net):
        def loss(variables):
            rngs = {"dropout": jax.random.key(3)}
            return jnp.square(net.apply(variables, XT, T, z, train=True, rngs=rngs)[0]).sum()

        return jax.grad(loss)

    thrifty = gradient(tiny.clone(remat="blocks"))
    blocks = 1 + 2 + 2  # down, middle, up
    assert str(jax.make_jaxpr(gradient(tiny))(variables)).count("prevent_cse") == 0
    assert str(jax.make_jaxpr(thrifty)(variables)).count("prevent_cse") >= blocks
    plain, again = jax.jit(gradient(tiny))(variables), jax.jit(thrifty)(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, again)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({}, 5, r"data\.image_size=5 .*model\.patch=1 .*2 levels.*multiple of 2 \(4 and 6 fit\)"),
        ({"patch": 4}, 4, r"data\.image_size=4 .*multiple of 8 \(8 fits\)"),
        ({"attention": (True,)}, 4, r"model\.attention has 1 entries; model\.multipliers asks for 2"),
        ({"heads": 3}, 4, r"model\.heads=3 must divide the 8 channels"),
        ({"remat": "all"}, 4, r"model\.remat='all' is unknown: take one of none, blocks"),
        ({"grouping": "per_pixel"}, 4, r"model\.grouping='per_pixel' is unknown: take one of per_skip"),
        ({"channels": 3}, 4, r"even width, not 3: change model\.channels"),
    ],
)
def test_what_does_not_fit_dies_with_the_key_and_what_would(change, size, message):
    with pytest.raises(ValueError, match=message):
        abstract(SMALL.clone(**change), image(size), jnp.ones(1), jnp.ones((1, 5, 3)))
