"""Prepared data sets are opened by name and read back as they were written."""

import dataclasses
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.sources import open_data_set
from data.views import decode
from tests import prepared_data as prepared

IMAGE = tfds.features.Image(shape=(28, 28, 1))


def test_single_images_are_described():
    dataset = prepared.single(1)
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.labels == {"label": 5}
    assert dataset.views == 1
    assert {name: len(source) for name, source in dataset.splits.items()} == {"train": 23, "test": 11}


def test_scenes_are_described():
    dataset = prepared.posed()
    assert (dataset.image_shape, dataset.views) == ((16, 16, 3), prepared.CAMERAS)
    assert dataset.labels == {"shape": 3}
    assert dataset.label_names == {"shape": ["ball", "box", "cone"]}
    assert dataset.cameras and not prepared.single(1).cameras


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_labels_come_back_as_written(channels):
    keys = []
    for index in range(prepared.TRAIN):
        example = prepared.single(channels).splits["train"][index]
        image = decode(example["images"][0], channels)
        keys.append(int(image.flat[0]))
        np.testing.assert_array_equal(image, np.squeeze(prepared.noise(keys[-1], 28, 28, channels)))
        assert example["labels"] == {"label": keys[-1] % 5}
        assert example["index"] == index
    assert sorted(keys) == list(range(prepared.TRAIN))


def test_scenes_come_back_camera_by_camera():
    for example in map(prepared.posed().splits["train"].__getitem__, range(8)):
        keys = [int(decode(encoded, 3).flat[0]) for encoded in example["images"]]
        scene = keys[0] // 10
        assert keys == [10 * scene + camera for camera in range(prepared.CAMERAS)]
        assert example["labels"] == {"shape": scene % 3}
        np.testing.assert_array_equal(example["camera_to_world"], [prepared.camera_to_world(k) for k in keys])
        np.testing.assert_array_equal(example["intrinsics"], prepared.INTRINSICS)


@pytest.mark.parametrize("shape", [(prepared.CAMERAS, 3, 3), (4,)])
def test_cameras_that_are_kept_otherwise_are_none(shape):
    """One matrix a view, or four numbers: the data set can be used, without its cameras."""
    name = f"otherwise{len(shape)}"
    features = {
        "image": tfds.features.Image(shape=(8, 8, 3)),
        "camera_to_world": tfds.features.Tensor(shape=(1, 4, 4), dtype=np.float32),
        "intrinsics": tfds.features.Tensor(shape=shape, dtype=np.float32),
    }
    row = {"image": prepared.png(prepared.noise(0, 8, 8, 3)), "intrinsics": np.ones(shape, np.float32)}
    row["camera_to_world"] = np.ones((1, 4, 4), np.float32)
    prepared.prepare(name, features, {"train": [row]})
    dataset = open_data_set(name, prepared.data_dir())
    assert not dataset.cameras and "intrinsics" not in dataset.split("train")[0]


def test_many_are_read_as_one_by_one():
    source = prepared.single(1).splits["train"]
    rows = [7, 0, 22, 7]
    assert source.read(np.array(rows)) == [source[row] for row in rows]


class Asked(list):
    """Records that remember which of them were read."""

    def __getitems__(self, rows):
        self.rows = rows
        return [self[row] for row in rows]


def test_a_record_that_is_wanted_twice_is_read_once():
    source = prepared.single(1).splits["train"]
    records = Asked(source.records[row] for row in range(4))
    found = dataclasses.replace(source, records=records).read([2, 0, 2, 2])
    assert records.rows == [2, 0] and found == [source[row] for row in (2, 0, 2, 2)]


def test_a_source_can_be_sent_to_a_worker():
    source = prepared.single(1).splits["train"]
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


def test_nothing_imports_tensorflow():
    assert prepared.single(1).splits["train"][0]
    assert "tensorflow" not in sys.modules


def test_a_slice_of_a_split_is_a_split():
    half = open_data_set("single1", prepared.data_dir(), train_split="train[:10]", test_split="train[10:]")
    whole = prepared.single(1).splits["train"]
    assert [len(half.splits[which]) for which in ("train", "test")] == [10, 13]
    assert half.splits["test"][0]["images"] == whole[10]["images"]


def test_a_stock_tfds_data_set_is_opened_by_its_name(tmp_path):
    features = {"id": tfds.features.Text(), "image": IMAGE, "label": tfds.features.ClassLabel(num_classes=5)}
    rows = [row | {"id": "train_1"} for row in prepared.single_rows(0, 2, 28, 28, 1)]
    prepared.prepare("cifar10", features, {"train": rows, "test": rows}, "3.0.2", tmp_path)
    assert open_data_set("cifar10", tmp_path).labels == {"label": 5}
    assert len(open_data_set("cifar10:3.0.2", tmp_path).splits["test"]) == 2


def test_the_newest_version_is_taken(tmp_path):
    for version, count in (("1.9.0", 1), ("1.10.0", 2)):
        rows = prepared.single_rows(0, count, 28, 28, 1)
        features = {"image": IMAGE, "label": tfds.features.ClassLabel(num_classes=5)}
        prepared.prepare("versions", features, {"train": rows}, version, tmp_path)
    assert len(open_data_set("versions", tmp_path).splits["train"]) == 2
    assert len(open_data_set("versions:1.9.0", tmp_path).splits["train"]) == 1


def test_without_a_folder_the_default_and_tfds_own_are_searched(monkeypatch, tmp_path):
    prepared.single(1)
    monkeypatch.setenv("SODA_JAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared.data_dir()))
    assert open_data_set("single1").path.parent.parent == prepared.data_dir()


def test_unlabelled_images_of_any_size_have_the_typical_size(tmp_path):
    rows = [{"image": prepared.png(prepared.noise(i, h, 20, 3))} for i, h in enumerate((30, 40, 40, 50, 60))]
    prepared.prepare(
        "mixed", {"image": tfds.features.Image(shape=(None, None, 3))}, {"train": rows}, place=tmp_path
    )
    dataset = open_data_set("mixed", tmp_path)
    assert (dataset.image_shape, dataset.labels) == ((40, 20, 3), {})
    assert dataset.splits["train"].read([0])[0]["labels"] == {}


def test_the_manifest_follows_the_data(tmp_path):
    prepared.prepare(
        "other", {"image": IMAGE}, {"train": [{"image": prepared.png(np.zeros((28, 28, 1)))}]}, place=tmp_path
    )
    other, one = open_data_set("other", tmp_path).manifest, prepared.single(1).manifest
    assert one == open_data_set("single1", prepared.data_dir()).manifest != other
    metadata = next(tmp_path.glob("other/*/metadata.json"))
    metadata.write_text(metadata.read_text().replace('"fingerprint": ""', '"fingerprint": "x"'))
    assert open_data_set("other", tmp_path).manifest != other


def test_a_posed_set_may_hold_its_images_as_plain_bytes(tmp_path):
    row = {"images": [prepared.png(prepared.noise(k, 24, 24, 3)) for k in range(3)]}
    prepared.prepare(
        "bytes", {"images": tfds.features.Sequence(tfds.features.Text())}, {"train": [row]}, place=tmp_path
    )
    dataset = open_data_set("bytes", tmp_path)
    assert (dataset.image_shape, dataset.views) == ((24, 24, 3), 3)
    assert dataset.splits["train"][0]["images"] == row["images"]


def test_the_one_label_of_single_images_is_called_label(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "species": tfds.features.ClassLabel(num_classes=5),
    }
    row = {"image": prepared.single_rows(0, 1, 28, 28, 1)[0]["image"], "species": 3}
    prepared.prepare("irises", features, {"train": [row]}, place=tmp_path)
    dataset = open_data_set("irises", tmp_path)
    assert dataset.labels == {"label": 5} and dataset.split("train")[0]["labels"] == {"label": 3}
