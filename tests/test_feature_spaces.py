"""Distances in named spaces: streaming and the mesh change nothing, worse images are further, names are honest."""

import dataclasses
import hashlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from soda_jax.evaluation import feature_spaces, frechet
from soda_jax.evaluation.feature_spaces import (
    FID_WEIGHTS,
    INCEPTION,
    Space,
    by_space,
    compared,
    distances,
    inception_name,
    measured,
)
from soda_jax.evaluation.kernel_distance import kernel_distance
from soda_jax.methods.base import to_float
from soda_jax.nn.conv import convolve

DRAWN = (-0.3688743, -0.1533618, 0.1163763)  # the last kernel of the random network begins with them
MATRIX = np.random.default_rng(0).normal(size=(8 * 8 * 3, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def linear():
    """A space that can be computed here."""

    def features(variables, images):
        return to_float(images).reshape(len(images), -1) @ variables["w"]

    return Space(name="linear", features=features, variables={"w": MATRIX})


@pytest.fixture(scope="module")
def random():
    return feature_spaces.random_resnet18()


def points(images):
    return (images.reshape(len(images), -1) / 127.5 - 1).astype(np.float32) @ MATRIX


def blobs(count, side=16, seed=0):
    """Smooth images in colour, uint8."""
    rough = np.random.default_rng(seed).normal(size=(count, side, side, 3))
    smooth = scipy.ndimage.gaussian_filter(rough, (0, 2, 2, 0))
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)


def test_what_is_streamed_is_what_all_at_once_would_give(linear):
    """Batches that no number of devices divides, and a last one that is smaller."""
    a, b = blobs(50, 8), blobs(47, 8, 1)
    found = distances(linear, np.split(a, [14, 28, 42]), np.split(b, [14, 28, 42]))
    moments = [frechet.of(points(x)) for x in (a, b)]
    assert found["frechet"] == pytest.approx(frechet.frechet_distance(*moments), rel=1e-4)
    assert found["n"] == {"a": 50, "b": 47} and found["space"] == "linear" and found["cautions"] == []
    assert found["kernel"]["subsets"] * found["kernel"]["images_a_subset"] <= 47
    low, high = found["kernel"]["ci95"]
    assert low < found["kernel"]["value"] < high


def test_the_kernel_distance_is_of_all_images_where_they_are_few(linear):
    """The subsets are drawn at random, so only what does not depend on the draw is known here."""
    a, b = blobs(20, 8), 255 - blobs(20, 8, 1) // 2
    value = distances(linear, [a], [b])["kernel"]["value"]
    rng = np.random.default_rng(0)
    drawn = [kernel_distance(*(rng.permutation(points(x)) for x in (a, b))).value for _ in range(50)]
    assert min(drawn) < value < max(drawn) and min(drawn) > 0


def test_batches_of_an_evaluation_are_taken_as_they_are(linear):
    images = blobs(12, 8)
    valid = np.arange(16) < 12
    whole = np.concatenate([images, np.zeros((4, 8, 8, 3), np.uint8)])
    batch = {"image": whole, "labels": {}, "index": np.where(valid, np.arange(16), -1), "valid": valid}
    found, plain = (distances(linear, [x], [blobs(12, 8, 1)]) for x in (batch, images))
    assert found["n"]["a"] == 12 and found["frechet"] == plain["frechet"]
    assert (
        found["kernel"] is None and "12 images are too few for the kernel distance" in found["cautions"][-1]
    )


def test_an_image_that_is_damaged_or_missing_is_said(linear):
    broken = Space(name="x", features=lambda v, images: to_float(images)[:, 0, 0] / 0.0, variables={})
    with pytest.raises(ValueError, match="not a finite number"):
        distances(broken, [blobs(4, 8)], [blobs(4, 8)])
    with pytest.raises(ValueError, match="no image to measure"):
        distances(linear, [blobs(4, 8)], [])


def test_the_random_network_is_the_same_everywhere_and_calibrated(random):
    """Its statistics are those of its made-up images, seen here for the first layer."""
    _, variables = feature_spaces.random_network()
    assert random.name == "random_resnet18"
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel[0, 0, 0, :3], DRAWN, rtol=1e-5)
    assert kernel.std() == pytest.approx((2 / 27) ** 0.5, rel=0.1)
    images = jnp.asarray(feature_spaces.made_up_images())
    assert -1 <= float(images.min()) < -0.9 and 0.9 < float(images.max()) <= 1
    seen = np.asarray(convolve(images, jnp.asarray(kernel), 2))
    stats = variables["batch_stats"]["stem"]["norm"]
    np.testing.assert_allclose(stats["mean"], seen.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(stats["var"], seen.var((0, 1, 2)), rtol=1e-3)


def test_images_that_are_worse_are_further_away(random):
    """Noise and blur, little by little, in the space that knows nothing of these images."""
    images = blobs(40)
    rng = np.random.default_rng(1)
    noise, reference = rng.normal(size=images.shape), measured(random, [images], 1)

    def found(changed):
        return compared(measured(random, [changed]), reference)

    noisy = [found(np.clip(images + 40 * amount * noise, 0, 255).astype(np.uint8)) for amount in (0, 0.25, 1)]
    blurred = [found(scipy.ndimage.gaussian_filter(images, (0, s, s, 0))) for s in (0.5, 1, 2)]
    for worse in (noisy, blurred):
        assert np.all(np.diff([one["frechet"] for one in worse]) > 0)
    assert noisy[0]["frechet"] == pytest.approx(0, abs=1e-6)
    kernels = [one["kernel"]["value"] for one in noisy]
    assert np.all(np.diff(kernels) > 0) and kernels[0] < 0.02 * kernels[2]
    assert "40 images" in noisy[0]["cautions"][0] and "512 features" in noisy[0]["cautions"][0]


def test_sets_of_different_spaces_are_not_compared(linear):
    a = measured(linear, [blobs(4, 8)])
    with pytest.raises(ValueError, match="measured in linear and in other"):
        compared(a, dataclasses.replace(a, space="other"))


def test_numbers_are_stored_under_their_space_and_only_one_is_called_fid():
    one = {"space": "x", "n": {"a": 2, "b": 3}, "frechet": 1.0, "kernel": None, "cautions": ["few"]}
    other = {**one, "space": "inception_0123abcd", "frechet": 2.0}
    found = by_space([one, other])
    assert found["frechet"] == {"x": 1.0, "inception_0123abcd": 2.0} and not {"fid", "kid"} & found.keys()
    assert found["n"] == {"a": 2, "b": 3} and found["cautions"]["x"] == ["few"]
    standard = by_space([one, {**other, "space": INCEPTION, "kernel": {"value": 3.0}}])
    assert standard["fid"] == 2.0 and standard["kid"] == {"value": 3.0}


def test_only_the_standard_file_makes_the_space_of_fid(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert inception_name(path) == f"inception_{digest[:8]}"
    assert inception_name(path, standard=digest) == INCEPTION
    assert FID_WEIGHTS.startswith("6726825d") and len(FID_WEIGHTS) == 64  # as the public file's name has it
