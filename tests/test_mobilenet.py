"""MobileNetV2: published sizes, stems, widths, the seam of encoders, and the same gradients on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.mobilenet import InvertedResidual, MobileNetV2, Stage, scaled
from tests.arrays import normal
from tests.encoder_gradients import assert_same_on_devices

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


class Short(MobileNetV2):
    """The first stages of it."""

    @property
    def layout(self):
        return Stage(1, 16, 1, 1), Stage(6, 24, 2, 2)


def abstract(net, images=IMAGES):
    """Shapes of ((z, features), variables) without computing."""
    return jax.eval_shape(net.init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize(("width", "count"), [(1.0, 3_504_872), (0.5, 1_968_680)])
def test_parameter_counts_are_the_published_ones(width, count):
    """With 1000 outputs, as the classifiers of torchvision."""
    _, variables = abstract(MobileNetV2(1000, width=width))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize(
    ("stem", "first", "last"), [("imagenet", 16, 1), ("strided", 16, 1), ("small", 32, 2)]
)
def test_stems_set_the_resolution(stem, first, last):
    (_, features), _ = abstract(MobileNetV2(6, stem=stem))
    assert features["stem"].shape == (2, first, first, 32)
    assert features["last"].shape == (2, last, last, 1280) and features["pooled"].shape == (2, 1280)


def test_features_are_named_and_the_last_map_is_pooled():
    net = MobileNetV2(5, width=0.25)
    (z, features), _ = abstract(net)
    blocks = {f"stage{s}/block{b}" for s, n in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for b in range(1, n + 1)}
    assert set(features) == blocks | {"stem", "last", "pooled", "z"}
    assert z.shape == features["z"].shape == (2, 5) and net.last_map == "last"


def test_channels_are_multiples_of_8_that_lose_no_more_than_a_tenth():
    assert [scaled(c, w) for c, w in ((32, 1.0), (24, 0.25), (18, 1.0), (24, 1.4), (16, 0.1), (84, 1.0))] == [
        32,
        8,
        24,
        32,
        8,
        88,
    ]


def test_a_gain_of_zero_passes_the_image_on():
    block, x = InvertedResidual(4, 1, 2, gain=0.0), normal(2, 6, 6, 4)
    variables = block.init(jax.random.key(0), x, train=False)
    np.testing.assert_allclose(block.apply(variables, x, train=False), x, rtol=1e-6)


def test_nothing_is_added_where_size_or_channels_change():
    for features, stride in ((4, 2), (8, 1)):
        block = InvertedResidual(features, stride, 2, gain=0.0)
        params = jax.eval_shape(lambda b=block: b.init(jax.random.key(0), normal(1, 6, 6, 4), train=False))
        assert params["params"]["project"]["norm"]["scale"].shape == (features,)
        made = block.init(jax.random.key(0), normal(1, 6, 6, 4), train=False)["params"]
        np.testing.assert_array_equal(made["project"]["norm"]["scale"], 1.0)  # the gain is for those that add


def test_bfloat16_compute_keeps_float32_state_and_outputs():
    (z, features), variables = abstract(MobileNetV2(5, width=0.25, dtype=jnp.bfloat16))
    assert features["stem"].dtype == features["last"].dtype == jnp.bfloat16
    assert z.dtype == features["pooled"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_the_number_of_devices_changes_no_gradient():
    assert_same_on_devices(Short(6, width=0.25, stem="small"), normal(16, 8, 8, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stem": "huge"}, r"model\.stem='huge' is unknown"),
        ({"width": 0.0}, r"model\.width_multiplier must be more than 0"),
        ({"residual_gain": 1.5}, r"model\.residual_gain must be 0 to 1"),
    ],
)
def test_what_is_none_is_told_by_key(change, words):
    with pytest.raises(ValueError, match=words):
        abstract(MobileNetV2(latent_dim=6, **change))
