"""The judge of pictures learns what can be seen, on any number of devices, and says the same of any batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import judge
from soda_jax.evaluation.judge import Training, shifted, shrunk, train_judge, untrained
from soda_jax.parallel.mesh import make_mesh

CLASSES = {"hue": 3, "side": 2}
TRAINING = Training(images=32 * 80, batch=32, learning_rate=1e-2, widths=(8, 16))


def pictures(count, seed):
    """A bright bar in one of three colours, left or right, on dark noise; and the labels."""
    rng = np.random.default_rng(seed)
    hue, side = rng.integers(0, 3, count), rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 8, 8, 3))
    for image, colour, right in zip(images, hue, side, strict=True):
        image[:, 1 + 4 * right : 3 + 4 * right, colour] += 180
    return images.astype(np.uint8), {"hue": hue, "side": side}


def trained(devices, training=TRAINING):
    mesh = make_mesh(devices=jax.devices()[:devices])
    return train_judge(*pictures(200, 0), CLASSES, training, lambda text: None, mesh)


@pytest.fixture(scope="module")
def expert():
    """Trained on two devices."""
    return trained(2)


def test_it_reads_every_label_of_pictures_it_has_never_seen(expert):
    images, labels = pictures(100, 1)
    found = expert(images)
    assert {name: np.mean(found[name] == truth) for name, truth in labels.items()} == {"hue": 1, "side": 1}


def test_before_training_it_knows_nothing():
    images, labels = pictures(100, 1)
    found = untrained((8, 8, 3), CLASSES, TRAINING)(images)
    assert np.mean((found["hue"] == labels["hue"]) & (found["side"] == labels["side"])) < 0.5


def test_a_verdict_does_not_depend_on_the_batch(expert, monkeypatch):
    images = pictures(21, 2)[0]
    whole = expert(images)
    monkeypatch.setattr(judge, "ROWS", 8)
    for name, found in expert(images).items():
        np.testing.assert_array_equal(found, whole[name])
        assert len(found) == 21


def test_the_number_of_devices_changes_no_step():
    short = dataclasses.replace(TRAINING, images=32 * 3)
    one, two = trained(1, short).variables, trained(2, short).variables
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)


def test_large_pictures_are_shrunk_and_small_ones_are_not():
    images = jnp.asarray(pictures(2, 0)[0])
    np.testing.assert_allclose(shrunk(images), images / 127.5 - 1, atol=1e-6)
    half = shrunk(images, side=4)
    assert half.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(half.mean((1, 2)), (images / 127.5 - 1).mean((1, 2)), atol=0.1)


def test_training_pictures_are_moved_a_little_each_its_own_way():
    images = jnp.zeros((40, 8, 8, 1)).at[:, 4, 4].set(1)
    moved = np.asarray(shifted(images, jax.random.key(0)))
    places = {tuple(map(int, np.argwhere(image[..., 0])[0])) for image in moved}
    assert len(places) > 10 and {x for place in places for x in place} == {2, 3, 4, 5, 6}
    assert (moved.sum((1, 2, 3)) == 1).all()


def test_without_labels_there_is_nothing_to_judge():
    with pytest.raises(ValueError, match="the data set has none"):
        untrained((8, 8, 3), {}, TRAINING)
    with pytest.raises(ValueError, match="--judge_images must be 1 or more, found 0"):
        Training(images=0)
