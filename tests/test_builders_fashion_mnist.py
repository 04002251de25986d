"""Fashion-MNIST from IDX files that the tests write themselves."""

import gzip
import struct

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.builders import fashion_mnist, store
from data.errors import DataError
from data.sources import open_data_set

SIZES = {"train": 30, "t10k": 12}


def idx(array: np.ndarray, magic: int) -> bytes:
    return struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()


def arrays(stem: str, count: int):
    random = np.random.default_rng(len(stem))
    return random.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count).astype(np.uint8) % 10


def write_source(folder, zipped: bool):
    for stem, count in SIZES.items():
        images, labels = arrays(stem, count)
        for name, content in (("images-idx3", idx(images, 2051)), ("labels-idx1", idx(labels, 2049))):
            path = folder / f"{stem}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.fixture
def source(tmp_path):
    (tmp_path / "idx").mkdir()
    return write_source(tmp_path / "idx", zipped=False)


def message(source) -> str:
    with pytest.raises(DataError) as caught:
        fashion_mnist.recipe(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_images_and_labels_read_back(tmp_path, zipped):
    recipe = fashion_mnist.recipe(write_source(tmp_path, zipped))
    rows = tfds.builder_from_directory(store.write(recipe, tmp_path / "out")).as_data_source("test")
    images, labels = arrays("t10k", 12)
    found = [(row["image"][..., 0].tobytes(), int(row["label"])) for row in (rows[i] for i in range(12))]
    assert sorted(found) == sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_the_pipeline_opens_it(source, tmp_path):
    store.write(fashion_mnist.recipe(source), tmp_path)
    data_set = open_data_set("fashion_mnist", tmp_path)
    assert data_set.labels == {"label": 10}
    assert data_set.image_shape == (28, 28, 1)
    assert data_set.label_names["label"][9] == "ankle_boot"
    encoded = data_set.splits["train"][0]["images"][0]
    assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED).shape == (28, 28)


def test_zipped_and_plain_files_are_the_same_data_set(source, tmp_path):
    zipped = write_source(tmp_path, zipped=True)
    assert fashion_mnist.recipe(source).fingerprint == fashion_mnist.recipe(zipped).fingerprint


def test_other_pixels_are_another_data_set(source):
    before = fashion_mnist.recipe(source).fingerprint
    path = source / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert fashion_mnist.recipe(source).fingerprint != before


def test_missing_file_is_named_with_the_package_that_has_it(source):
    (source / "train-labels-idx1-ubyte").unlink()
    text = message(source)
    assert f"no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz in {source}" in text
    assert "dataset-fashion-mnist" in text
    assert "--source=DIR" in text


def test_missing_folder_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in message(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("cut", [3, 20])
def test_cut_file_is_named(source, name, cut):
    path = source / name
    path.write_bytes(path.read_bytes()[: -cut if cut < 10 else 6])
    text = message(source)
    assert str(path) in text
    assert "fetch it again" in text


def test_cut_gzip_is_named(tmp_path):
    path = write_source(tmp_path, zipped=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in message(tmp_path)


def test_a_file_in_place_of_another_is_named(source):
    (source / "t10k-labels-idx1-ubyte").write_bytes((source / "t10k-images-idx3-ubyte").read_bytes())
    assert f"{source / 't10k-labels-idx1-ubyte'} is not the IDX file" in message(source)


def test_images_and_labels_must_match_in_number(source):
    (source / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(11, np.uint8), 2049))
    assert "12 images and 11 labels" in message(source)


def test_a_label_that_is_no_class_is_refused(source):
    (source / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(12, 10, np.uint8), 2049))
    assert "t10k has the label 10, expected 0 to 9" in message(source)
