"""ResNet encoders: published sizes, stems, named features, BatchNorm's two modes, and the same gradients on devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.resnet import STAGES, NormalisedConv, ResNet, ResNetBlock
from tests.arrays import normal, random_variables
from tests.encoder_gradients import assert_same_on_devices

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def abstract(net, images=IMAGES):
    """Shapes of ((z, features), variables) without computing."""
    return jax.eval_shape(net.init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("depth", "count"),
    [(10, 5_418_792), (18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)],
)
def test_parameter_counts_are_the_published_ones(depth, count):
    """With 1000 outputs, as the classifiers of torchvision."""
    _, variables = abstract(ResNet(depth, 1000))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize(
    ("stem", "first", "last"), [("imagenet", 8, 1), ("small", 32, 4), ("strided", 16, 2)]
)
def test_stems_set_the_resolution(stem, first, last):
    (_, features), _ = abstract(ResNet(18, 6, stem=stem))
    assert features["stem"].shape == (2, first, first, 64)
    assert features["stage4/block2"].shape == (2, last, last, 512)


def test_features_are_named_and_flat_where_probed():
    (z, features), _ = abstract(ResNet(50, 6, width=8, stem="small"))
    blocks = {f"stage{s}/block{b}" for s, n in enumerate((3, 4, 6, 3), 1) for b in range(1, n + 1)}
    assert set(features) == blocks | {"stem", "pooled", "z"}
    assert z.shape == features["z"].shape == (2, 6) and features["pooled"].shape == (2, 8 * 8 * 4)


def test_width_and_channels_are_free():
    (_, features), _ = abstract(ResNet(18, 6, width=24), jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32))
    assert features["pooled"].shape == (1, 24 * 8)


@pytest.mark.parametrize("change", [{"depth": 20}, {"stem": "huge"}])
def test_unknown_names_die_with_the_key(change):
    fields = {"depth": 18, "stem": "small"} | change
    with pytest.raises(ValueError, match=r"model\.(encoder|stem)=.*(resnet20|huge).*(resnet18|imagenet)"):
        abstract(ResNet(latent_dim=6, **fields))


LAYER, X = NormalisedConv(4, 1), normal(6, 3, 3, 2)  # a 1x1 convolution, so that what is normalised is known


@pytest.fixture(scope="module")
def variables():
    return random_variables(LAYER, X, train=False)


def convolved(variables):
    return np.array(X) @ np.array(variables["params"]["conv"]["kernel"])[0, 0]


def normalised(variables, mean, var):
    norm = jax.tree.map(np.array, variables["params"]["norm"])
    return norm["scale"] * (convolved(variables) - mean) / np.sqrt(var + 1e-5) + norm["bias"]


def test_training_normalises_by_the_batch_and_moves_the_statistics_by_a_tenth(variables):
    y, new = LAYER.apply(variables, X, True, mutable=["batch_stats"])
    old, new = variables["batch_stats"]["norm"], new["batch_stats"]["norm"]
    mean, var = convolved(variables).mean((0, 1, 2)), convolved(variables).var((0, 1, 2))
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * var, rtol=1e-5)
    np.testing.assert_allclose(y, normalised(variables, mean, var), rtol=1e-4, atol=1e-5)


def test_evaluation_takes_the_running_statistics(variables):
    stats = jax.tree.map(np.array, variables["batch_stats"]["norm"])
    expected = normalised(variables, stats["mean"], stats["var"])
    np.testing.assert_allclose(LAYER.apply(variables, X, False), expected, rtol=1e-4, atol=1e-5)


def test_z_is_a_linear_map_of_the_pooled_features():
    net, images = ResNet(18, 5, width=4, stem="strided"), normal(2, 16, 16, 3)
    variables = random_variables(net, images)
    z, features = jax.tree.map(np.array, jax.jit(net.apply)(variables, images))
    head = jax.tree.map(np.array, variables["params"]["head"])
    expected = features["pooled"] @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["pooled"], np.mean(features["stage4/block2"], (1, 2)), rtol=1e-5)
    assert np.std(z, axis=0).min() > 0  # images matter


def test_pooled_features_are_normalised_by_channel_before_the_head():
    """By the batch in training, by what is remembered of batches otherwise; "pooled" is as it was."""
    net, images = ResNet(18, 5, width=4, stem="strided", pooled_norm=True), normal(16, 16, 16, 3)
    variables = random_variables(net, images)
    head = jax.tree.map(np.array, variables["params"]["head"])
    stored = jax.tree.map(np.array, variables["batch_stats"]["pooled_norm"])
    assert "pooled_norm" not in variables["params"]

    def expected(features, mean, var):
        return (features["pooled"] - mean) / np.sqrt(var + 1e-5) @ head["kernel"] + head["bias"]

    z, features = jax.tree.map(np.array, jax.jit(net.apply)(variables, images))
    np.testing.assert_allclose(z, expected(features, stored["mean"], stored["var"]), rtol=1e-4, atol=1e-5)
    train = jax.jit(lambda v: net.apply(v, images, True, mutable=["batch_stats"]))
    (z, features), left = jax.tree.map(np.array, train(variables))
    mean, var = features["pooled"].mean(0), features["pooled"].var(0)
    np.testing.assert_allclose(z, expected(features, mean, var), rtol=1e-3, atol=1e-4)
    kept = left["batch_stats"]["pooled_norm"]["mean"]
    np.testing.assert_allclose(kept, 0.9 * stored["mean"] + 0.1 * mean, rtol=1e-4, atol=1e-6)


class Short(ResNet):
    """The stem of it."""

    def stages(self, h, train):
        return {}


def test_pooled_features_are_normalised_over_the_whole_batch_on_every_number_of_devices():
    assert_same_on_devices(Short(18, 6, width=4, stem="strided", pooled_norm=True), normal(16, 8, 8, 1))


def test_bfloat16_compute_keeps_float32_state_and_outputs():
    low = ResNet(18, 5, width=4, dtype=jnp.bfloat16)
    (z, features), variables = abstract(low)
    assert features["stem"].dtype == features["stage4/block2"].dtype == jnp.bfloat16
    assert z.dtype == features["pooled"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    train = jax.eval_shape(
        lambda v: low.apply(v, normal(2, 32, 32, 3), True, mutable=["batch_stats"]), variables
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(train[1])} == {jnp.dtype("float32")}


def test_kernels_start_as_xavier(key):
    layer, x = NormalisedConv(32, 3), jnp.zeros((1, 3, 3, 32))
    kernel = jax.jit(lambda key: layer.init(key, x, False)["params"]["conv"]["kernel"])(key)
    bound = np.sqrt(6 / (9 * 32 + 9 * 32))
    assert 0.95 * bound < abs(kernel).max() <= bound


@pytest.mark.parametrize(("depth", "last"), [(18, "conv1"), (50, "conv2")])
def test_residual_gain_is_where_the_scale_at_the_end_of_a_branch_starts(depth, last):
    net = ResNet(depth, 5, width=2, stem="strided", residual_gain=0.25)
    params = jax.jit(net.init)(jax.random.key(0), normal(1, 8, 8, 3))["params"]
    scales = {(name, part): layer["norm"]["scale"] for name, part, layer in normalised_convs(params)}
    for (_, part), scale in scales.items():
        np.testing.assert_array_equal(scale, 0.25 if part == last else 1.0)
    assert sum(part == last for _, part in scales) == sum(STAGES[depth])


def normalised_convs(params):
    """(block, its part, the part's parameters) of every convolution inside a block."""
    blocks = {name: block for name, block in params.items() if name.startswith("stage")}
    return [(name, part, layer) for name, block in blocks.items() for part, layer in block.items()]


def test_a_gain_of_zero_passes_the_image_on():
    """relu(x + 0 f(x)) with x >= 0 is x, where the block keeps the shape."""
    block, x = ResNetBlock(4, 1, bottleneck=False, gain=0.0), abs(normal(2, 6, 6, 4))
    variables = block.init(jax.random.key(0), x, train=False)
    np.testing.assert_allclose(block.apply(variables, x, train=False), x, rtol=1e-6)
