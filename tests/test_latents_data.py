"""Latents as data: kept as PNG without loss, read as float32 by training and by evaluation, never taken for images."""

import functools

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import latents
from data.errors import DataError
from data.pipeline import evaluation_batches, training_batches
from data.sources import open_data_set
from data.views import Views
from tests import prepared_data as prepared

SIDE, COPIES = 8, 3


def latent(key):
    """Of an image and a copy."""
    return np.random.default_rng(key).normal(size=(SIDE, SIDE, 4)).astype(np.float16)


@functools.cache
def dataset(name="latents"):
    """Twelve images of three copies each, and six test images of one; what the mean says is the label."""
    features = {
        "images": tfds.features.Sequence(
            tfds.features.Image(shape=(SIDE, SIDE, 4), dtype=np.uint16, encoding_format="png")
        ),
        "label": tfds.features.ClassLabel(num_classes=2),
    }

    def row(key, copies):
        images = [latents.encode(latent([key, copy]) + key % 2) for copy in range(copies)]
        return {"images": images, "label": key % 2}

    rows = {
        "train": [row(key, COPIES) for key in range(12)],
        "test": [row(key, 1) for key in range(100, 106)],
    }
    prepared.prepare(name, features, rows)
    return open_data_set(name, prepared.data_dir())


def test_what_is_kept_is_every_bit_of_a_half():
    """Infinities and the smallest numbers too."""
    found = latent(0)
    found.flat[:4] = np.inf, -np.inf, 6e-8, -0.0
    image = cv2.imdecode(np.frombuffer(latents.encode(found), np.uint8), cv2.IMREAD_UNCHANGED)
    read = latents.decode(image)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.astype(np.float16).view(np.uint16), found.view(np.uint16))


def test_training_draws_a_copy_and_does_not_touch_it():
    data = dataset()
    assert (
        data.latents
        and data.views == 1
        and data.image_shape == (SIDE, SIDE, 4)
        and data.labels == {"label": 2}
    )
    views, seen = Views(image_size=SIDE, source_size=SIDE, channels=4, pair="same"), set()
    with training_batches(data, views, batch=6, seed=0, threads=0) as stream:
        for _ in range(20):
            batch = next(stream)
            assert batch["target"].dtype == np.float32
            np.testing.assert_array_equal(batch["source"], batch["target"])
            for image in batch["target"]:
                seen |= {(k, c) for k in range(12) for c in range(COPIES) if same(image, k, c)}
    assert len(seen) > 0.8 * 12 * COPIES


def same(image, key, copy):
    return np.array_equal(image, (latent([key, copy]) + key % 2).astype(np.float32))


def test_evaluation_sees_the_first_copy_of_each():
    """Rows are shuffled in the files; padding is zeros."""
    for split, keys in (("train", range(12)), ("test", range(100, 106))):
        seen, fields = [], {"batch": 4, "image_size": SIDE, "channels": 4, "threads": 0}
        with evaluation_batches(dataset(), split, **fields) as stream:
            for batch in stream:
                assert batch["image"].dtype == np.float32 and not batch["image"][~batch["valid"]].any()
                for image, label in zip(batch["image"], batch["labels"]["label"], strict=True):
                    seen += [key for key in keys if same(image, key, 0) and label == key % 2]
        assert sorted(seen) == list(keys)


@pytest.mark.parametrize(
    ("of", "fields", "words"),
    [
        (dataset, {"channels": 3}, r"channels = 3: data set 'latents' holds latents: set it to 4"),
        (
            prepared.single,
            {"channels": 4, "pair": "same"},
            r"channels = 4: .* holds images: set it to 1 or 3",
        ),
    ],
)
def test_latents_and_images_are_told_apart(of, fields, words):
    with pytest.raises(DataError, match=words):
        training_batches(of(), Views(image_size=SIDE, source_size=SIDE, **fields), batch=2, seed=0)


def test_latents_are_not_augmented():
    with pytest.raises(DataError, match=r"pair = 'augment': expected one of .*, and 'same' of latents"):
        Views(image_size=SIDE, source_size=SIDE, channels=4)
