"""A data set is there whole or not at all: kills, full disks, damage, taken names, two writers at once."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.builders import store
from data.builders.recipe import Recipe, Split
from data.errors import DataError

ROOT = pathlib.Path(__file__).resolve().parent.parent
SLOW_BUILD = """
import sys, pathlib
from data.builders import store, views3d
store.write(views3d.recipe(views3d.Plan(train=3000, test=8)), pathlib.Path(sys.argv[1]))
"""


def numbers(
    name="numbers", count=20, fingerprint="a", source="somewhere", payload=10, fail=None, version="1.0.0"
):
    """A recipe of `count` records of `payload` random bytes; `fail` is raised in the middle."""

    def examples():
        for row in range(count):
            if fail and row == count // 2:
                raise fail
            yield str(row), {"value": row, "bytes": np.random.default_rng(row).bytes(payload)}

    features = {"value": np.int64, "bytes": tfds.features.Tensor(shape=(), dtype=np.object_)}
    return Recipe(
        name=name,
        version=version,
        description="numbers",
        features=tfds.features.FeaturesDict(features),
        splits={"train": Split(size=count, examples=examples)},
        source=source,
        fingerprint=fingerprint,
        image_shape=(None, None, 3),
    )


def refusal(function, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_prepared_and_nothing_lies_beside_it(tmp_path):
    assert not store.is_prepared(numbers(), tmp_path)
    folder = store.write(numbers(), tmp_path)
    assert folder == tmp_path / "numbers" / "1.0.0"
    assert store.is_prepared(numbers(), tmp_path)
    assert os.listdir(tmp_path) == ["numbers"]
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata == {"source": "somewhere", "fingerprint": "a", "image_shape": [None, None, 3], "views": 1}


def test_records_are_shuffled_but_always_in_the_same_order(tmp_path):
    orders = []
    for place in ("a", "b"):
        rows = tfds.builder_from_directory(store.write(numbers(), tmp_path / place)).as_data_source("train")
        orders.append([int(rows[i]["value"]) for i in range(20)])
    assert sorted(orders[0]) == list(range(20)) != orders[0]
    assert orders[0] == orders[1]


@pytest.mark.parametrize("error", [DataError("bad input"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        store.write(numbers(fail=error), tmp_path)
    assert os.listdir(tmp_path) == []


def start_slow_build(place):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(place)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert "views3d train" in process.stderr.readline()  # records are coming in
    return process


def children(pid: int) -> list[int]:
    return [int(n) for n in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_preparation_is_no_data_set_and_is_swept_by_the_next(tmp_path):
    process = start_slow_build(tmp_path)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == [".preparing"]
    assert not store.is_prepared(numbers("views3d"), tmp_path)
    store.write(numbers("views3d"), tmp_path)
    assert os.listdir(tmp_path) == ["views3d"]
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers)), "workers outlive their parent"


def test_a_living_preparation_is_not_swept(tmp_path):
    with store._workplace("numbers", tmp_path) as workplace:
        store.write(numbers(), tmp_path)
        assert workplace.exists()
    assert os.listdir(tmp_path) == ["numbers"]


def test_two_preparations_of_the_same_give_one(tmp_path):
    with store._workplace("numbers", tmp_path) as workplace:
        built = store._build(numbers(), workplace)
        store.write(numbers(), tmp_path)
        assert store._move(built, numbers(), tmp_path) == tmp_path / "numbers" / "1.0.0"


def test_a_file_size_limit_stops_it_with_the_place_named(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        text = refusal(store.write, numbers(payload=30_000), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert text.startswith(f"no space left under {tmp_path}: free some, or choose another --data_dir")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk; the file size limit above stands in for it")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_stops_it_with_the_place_named(tiny_disk):
    text = refusal(store.write, numbers(payload=30_000), tiny_disk)
    assert text.startswith(f"no space left under {tiny_disk}: free some")
    assert os.listdir(tiny_disk) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert f"cannot write under {tmp_path / 'file'}" in refusal(store.write, numbers(), tmp_path / "file")


def test_a_data_set_of_other_input_keeps_its_name(tmp_path):
    store.write(numbers(), tmp_path)
    text = refusal(store.is_prepared, numbers(fingerprint="b", source="elsewhere"), tmp_path)
    assert "the name 'numbers' is taken" in text
    assert "prepared from somewhere, not from elsewhere; choose another --name" in text


def test_input_that_has_changed_is_said_to_have_changed(tmp_path):
    store.write(numbers(), tmp_path)
    text = refusal(store.is_prepared, numbers(fingerprint="b"), tmp_path)
    assert text.startswith("somewhere has changed since")
    assert f"delete {tmp_path / 'numbers' / '1.0.0'} and prepare again" in text


def test_a_data_set_from_elsewhere_keeps_its_name(tmp_path):
    """Readers take the highest version: 3.0.2 of a stock data set would hide ours."""
    folder = store.write(numbers("cifar10", version="3.0.2"), tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(
        info.read_text().replace("data.builders.recipe", "tensorflow_datasets.image_classification")
    )
    assert f"{folder} is a data set from elsewhere" in refusal(
        store.is_prepared, numbers("cifar10"), tmp_path
    )


def test_an_older_version_of_ours_may_stay(tmp_path):
    store.write(numbers(), tmp_path)
    newer = numbers(version="1.1.0", fingerprint="b")
    assert not store.is_prepared(newer, tmp_path)
    assert store.write(newer, tmp_path).name == "1.1.0"


def spoil_by_removal(shard):
    shard.unlink()


def spoil_by_cutting(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


@pytest.mark.parametrize("spoil", [spoil_by_removal, spoil_by_cutting])
def test_damage_is_noticed_on_the_next_preparation(tmp_path, spoil):
    folder = store.write(numbers(payload=30_000), tmp_path)
    spoil(next(folder.glob("*array_record*")))
    text = refusal(store.is_prepared, numbers(payload=30_000), tmp_path)
    assert text.startswith(f"{folder} is damaged (")
    assert text.endswith("delete this folder and prepare the data set again")


def test_fewer_records_than_promised_are_no_data_set(tmp_path):
    recipe = numbers()
    short = Recipe(
        **{**vars(recipe), "splits": {"train": Split(size=21, examples=recipe.splits["train"].examples)}}
    )
    assert "expected {'train': 21} examples, found {'train': 20}" in refusal(store.write, short, tmp_path)
    assert os.listdir(tmp_path) == []
