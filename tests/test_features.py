"""Features: every valid image once and in order, whatever the batch and the devices; the baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.baselines import calibrated
from soda_jax.evaluation.features import Extractor, local_mesh, pixels
from soda_jax.methods.base import to_float
from tests import tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 1), np.uint8)


def batches(size: int = 4, images=IMAGES):
    """As `evaluation_batches` gives them: in order, the last one filled up with black images."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        index = np.concatenate([np.arange(start, start + len(part)), np.full(size - len(part), -1)])
        valid = index >= 0
        labels = {"first": np.where(valid, index % 3, 0), "second": np.where(valid, index % 2, 0)}
        image = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
        yield {"image": image, "labels": labels, "index": index, "valid": valid}


def encode(variables, images):
    flat = to_float(images).reshape(len(images), -1)
    return {"z": flat @ variables["w"], "pooled": flat[:, :3], "unused": flat}


@pytest.fixture(scope="module")
def variables():
    return {"w": np.random.default_rng(1).normal(size=(64, 5)).astype(np.float32)}


@pytest.mark.parametrize("size", [1, 4, 8, 11, 16])
def test_every_image_once_in_order(variables, size):
    table = Extractor(encode, ("z", "pooled"))(variables, batches(size))
    expected = (IMAGES.reshape(11, -1) / 127.5 - 1) @ variables["w"]
    np.testing.assert_allclose(table.features["z"], expected, rtol=1e-4, atol=1e-4)
    assert table.index.tolist() == list(range(11)) and len(table) == 11
    assert table.labels["first"].tolist() == [i % 3 for i in range(11)]
    assert table.labels["second"].tolist() == [i % 2 for i in range(11)]


def test_only_the_features_asked_for_come_back(variables):
    table = Extractor(encode, ("pooled",))(variables, batches())
    assert list(table.features) == ["pooled"] and table.features["pooled"].dtype == np.float32
    assert isinstance(table.features["pooled"], np.ndarray)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_number_of_devices_does_not_matter(variables, count):
    one = (
        local_mesh()
        if count == 8
        else jax.make_mesh(
            (count, 1),
            ("data", "fsdp"),
            axis_types=(jax.sharding.AxisType.Auto,) * 2,
            devices=jax.devices()[:count],
        )
    )
    table = Extractor(encode, ("pooled",), one)(variables, batches())
    expected = IMAGES.reshape(11, -1)[:, :3] / 127.5 - 1
    np.testing.assert_allclose(table.features["pooled"], expected, atol=1e-6)


def test_the_batch_is_cut_over_the_devices(variables):
    shards = []
    extractor = Extractor(encode, ("pooled",))
    program = extractor.program
    extractor.program = lambda v, batch: (
        shards.append(batch["image"].sharding.shard_shape(batch["image"].shape)) or program(v, batch)
    )
    extractor(variables, batches(11))
    assert shards == [(2, 8, 8, 1)]  # 11 images, filled up to 16, on 8 devices


def test_a_second_split_is_not_compiled_again(variables):
    traced = []

    def counted(variables, images):
        traced.append(images.shape)
        return encode(variables, images)

    extractor = Extractor(counted, ("z",))
    extractor(variables, batches())
    extractor(variables, batches(images=IMAGES[:6]))
    assert traced == [(8, 8, 8, 1)]


def test_groups_are_the_scenes(variables):
    assert Extractor(encode, ("z",))(variables, batches(), 4).groups.tolist() == [0] * 4 + [1] * 4 + [2] * 3
    assert Extractor(encode, ("z",))(variables, batches()).groups.tolist() == list(range(11))


def test_an_unknown_feature_is_named(variables):
    with pytest.raises(
        ValueError, match=r"expected features \['zz'\], the encoder has \['pooled', 'unused', 'z'\]"
    ):
        Extractor(encode, ("z", "zz"))(variables, batches())


def test_nothing_to_encode_is_said(variables):
    with pytest.raises(ValueError, match="no image to encode"):
        Extractor(encode, ("z",))(variables, [])


def test_small_images_are_taken_as_they_are():
    np.testing.assert_allclose(pixels(jnp.asarray(IMAGES)), IMAGES.reshape(11, -1) / 255, atol=1e-6)


def test_large_images_are_shrunk_without_aliasing():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = np.asarray(pixels(jnp.asarray(stripes))).reshape(32, 32, 3)
    np.testing.assert_allclose(small[:, 1:-1], 0.5, atol=0.01)
    assert pixels(jnp.asarray(stripes), side=8).shape == (1, 8 * 8 * 3)
    flat = np.full((2, 48, 64, 1), 51, np.uint8)
    np.testing.assert_allclose(pixels(jnp.asarray(flat)), 0.2, atol=1e-5)


@pytest.fixture(scope="module")
def untrained():
    method = tiny.soda(encoder=tiny.Encoder(batch_norm=True), source_noise=0.0)
    spec = tiny.spec(tiny.batch())
    return method, method.init(jax.random.key(0), spec), spec


def activations(variables, images) -> np.ndarray:
    """What the encoder's BatchNorm sees, computed here."""
    kernel = variables["params"]["encoder"]["Conv_0"]["kernel"]
    dims = ("NHWC", "HWIO", "NHWC")
    floats = to_float(jnp.asarray(images))
    return np.asarray(jax.lax.conv_general_dilated(floats, kernel, (2, 2), "SAME", dimension_numbers=dims))


@pytest.mark.parametrize("count", [8, 11])
def test_calibrated_statistics_are_those_of_the_images(untrained, count):
    method, variables, spec = untrained
    found = calibrated(method, variables, spec, batches(4, IMAGES[:count]), 0)
    stats, seen = found["batch_stats"]["encoder"]["BatchNorm_0"], activations(variables, IMAGES[:count])
    np.testing.assert_allclose(stats["mean"], seen.mean((0, 1, 2)), rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(stats["var"], seen.var((0, 1, 2)), rtol=0.01)


def test_many_images_are_averaged_over(untrained):
    method, variables, spec = untrained
    images = np.concatenate(
        [IMAGES[:10] // 2] * 20 + [IMAGES[:10]] * 20
    )  # a darker half, then a brighter one
    found = calibrated(method, variables, spec, batches(16, images), 0)
    mean = found["batch_stats"]["encoder"]["BatchNorm_0"]["mean"]
    dark, bright = (activations(variables, x).mean((0, 1, 2)) for x in (IMAGES[:10] // 2, IMAGES[:10]))
    assert np.all((mean > np.minimum(dark, bright) - 0.02) & (mean < np.maximum(dark, bright) + 0.02))


def test_calibration_leaves_the_parameters_alone(untrained):
    method, variables, spec = untrained
    after = calibrated(method, variables, spec, batches(), 0)
    jax.tree.map(np.testing.assert_array_equal, after["params"], variables["params"])
    again = calibrated(method, variables, spec, batches(), 0)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], again["batch_stats"])


def test_without_batch_norm_there_is_nothing_to_calibrate():
    method, spec = tiny.soda(), tiny.spec(tiny.batch())
    variables = method.init(jax.random.key(0), spec)
    assert calibrated(method, variables, spec, batches(), 0) is variables
