"""A data set that cannot be used is refused in one line that names the place, the key and the fix."""

import re
import shutil

import pytest
import tensorflow_datasets as tfds

from data import missing
from data.errors import DataError
from data.missing import prepared as names_in
from data.sources import open_data_set
from tests import prepared_data as prepared

IMAGE = tfds.features.Image(shape=(28, 28, 1))


def refused(name: str, place, *words: str, **splits: str) -> None:
    """Opening fails with one line that has all the words."""
    with pytest.raises(DataError) as error:
        open_data_set(name, place, **splits)
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


@pytest.fixture
def place():
    """A folder with single1 and posed in it."""
    prepared.single(1), prepared.posed()
    return prepared.data_dir()


@pytest.fixture
def damaged(tmp_path):
    """A copy of single1 that a test may damage: (data_dir, folder of the version)."""
    folder = tmp_path / "single1" / "1.0.0"
    shutil.copytree(prepared.single(1).path, folder)
    return tmp_path, folder


def test_a_mistyped_name_is_guessed(place):
    refused(
        "singel1",
        place,
        "'singel1'",
        "config.data.name",
        "config.data.dir",
        str(place),
        "posed",
        "'single1'?",
    )


def test_a_name_of_a_folder_of_images_gets_its_command(place):
    refused("holiday", place, f"python -m data.prepare folder --source=DIR --name=holiday --data_dir={place}")


@pytest.mark.parametrize("name", list(missing.OURS))
def test_our_own_data_sets_get_their_command(tmp_path, name):
    refused(name, tmp_path, "there: none", f"python -m data.prepare {name}", f"--data_dir={tmp_path}")


def test_a_data_set_of_tfds_gets_its_command(tmp_path):
    refused(
        "imagenet2012", tmp_path, f"tfds build imagenet2012 --file_format=array_record --data_dir={tmp_path}"
    )


def test_a_missing_config_is_listed(place):
    shutil.copytree(prepared.single(1).path, place / "several" / "small" / "1.0.0")
    refused("several", place, "choose one of its configs: several/small")
    assert len(open_data_set("several/small", place).splits["train"]) == prepared.TRAIN


def test_a_missing_version_is_refused(place):
    refused("single1:7.0.0", place, "'single1:7.0.0'")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    refused("views3d", tmp_path / "nowhere", str(tmp_path / "nowhere"))


def test_what_a_killed_preparation_left_is_not_listed(damaged):
    place, folder = damaged
    shutil.copytree(folder, place / ".preparing-x" / "single1" / "1.0.0")
    shutil.copytree(folder, place / ".preparing-x" / "2.0.0")
    shutil.copytree(folder, place / "single1" / "incomplete.XYZ_2.0.0")
    assert names_in(place) == ["single1"]
    assert open_data_set("single1", place).path == folder


def test_a_missing_training_split_names_its_key(place):
    refused("single1", place, "'trian'", "config.data.train_split", "train, test", train_split="trian")


def test_a_missing_test_split_is_refused_when_it_is_asked_for(place):
    dataset = open_data_set("single1", place, test_split="validation")
    assert "test" not in dataset.splits
    with pytest.raises(
        DataError, match=re.escape("no split 'validation', only train, test: set config.data.test_split")
    ):
        dataset.split("test")


def test_another_file_format_is_refused(damaged):
    place, folder = damaged
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    refused("single1", place, "array_record", "tfrecord", str(folder), "config.data.dir")


def test_a_missing_shard_is_refused(damaged):
    place, folder = damaged
    shard = next(folder.glob("*train*"))
    shard.unlink()
    refused("single1", place, str(shard), "delete", "prepare")


def test_a_data_set_without_images_is_refused(tmp_path):
    prepared.prepare("words", {"text": tfds.features.Text()}, {"train": [{"text": "a"}]}, place=tmp_path)
    refused("words", tmp_path, "expected one image feature", "found none", "text", "config.data.name")


def test_of_two_images_neither_is_guessed(tmp_path):
    row = prepared.single_rows(0, 1, 28, 28, 1)[0]["image"]
    prepared.prepare("two", {"a": IMAGE, "b": IMAGE}, {"train": [{"a": row, "b": row}]}, place=tmp_path)
    refused("two", tmp_path, "expected one image feature", "'a', 'b'")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dataset_info.json", b"{"),
        ("dataset_info.json", b'{"splits": 3}'),
        ("features.json", b'{"a'),
        ("features.json", None),
        ("*train*", b"cut"),
    ],
)
def test_a_damaged_file_is_told_with_its_folder(damaged, file, content):
    place, folder = damaged
    path = next(folder.glob(file))
    path.unlink() if content is None else path.write_bytes(content)
    refused("single1", place, str(folder), "delete this folder and prepare the data set again")


@pytest.mark.parametrize("split", ["train[:9%", "train[bogus]", "train[:0%]"])
def test_a_slice_that_cannot_be_read_or_is_empty_names_its_key(place, split):
    refused("single1", place, f"config.data.train_split = {split!r}", train_split=split)
