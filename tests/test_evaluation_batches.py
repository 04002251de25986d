"""Evaluation sees every image once, in order, with its labels; padding is marked."""

import numpy as np
import pytest

from data.errors import DataError
from data.pipeline import evaluation_batches
from data.views import Views, decode
from tests import prepared_data as prepared


def batches(dataset=None, split="test", **changes) -> list[dict]:
    config = {"batch": 4, "image_size": 28, "channels": 1, "threads": 0} | changes
    with evaluation_batches(dataset or prepared.single(1), split, **config) as stream:
        return list(stream)


def joined(parts: list[dict]) -> dict:
    flat = [{**part, **{f"label {name}": value for name, value in part["labels"].items()}} for part in parts]
    return {name: np.concatenate([part[name] for part in flat]) for name in flat[0] if name != "labels"}


def test_every_image_comes_once_in_order():
    whole = joined(batches())
    assert whole["index"].tolist() == [*range(prepared.TEST), -1]
    for image, label, index in zip(whole["image"], whole["label label"], whole["index"], strict=True):
        if index >= 0:
            example = prepared.single(1).splits["test"][int(index)]
            np.testing.assert_array_equal(image[:, :, 0], decode(example["images"][0], 1))
            assert label == example["labels"]["label"] == int(image.flat[0]) % 5


def test_types_and_shapes():
    batch = batches(channels=3, image_size=14)[0]
    assert batch["image"].shape == (4, 14, 14, 3) and batch["image"].dtype == np.uint8
    assert batch["labels"]["label"].dtype == batch["index"].dtype == np.int32
    assert batch["valid"].dtype == bool


def test_the_last_batch_is_filled_up():
    last = batches()[-1]
    assert last["valid"].tolist() == [True, True, True, False]
    assert last["index"][3] == -1 and last["labels"]["label"][3] == 0 and not last["image"][3].any()
    assert all(batch["valid"].all() for batch in batches()[:-1])


def test_a_batch_of_padding_alone_is_possible():
    """More processes than images: every process gives as many batches as the others."""
    parts = [batches(indices=[5], process_index=p, process_count=4) for p in range(4)]
    assert [part[0]["valid"].tolist() for part in parts] == [[True], [False], [False], [False]]


def test_indices_choose_and_order():
    rows = [7, 2, 7, 0, 10]
    whole = joined(batches(indices=rows))
    assert whole["index"].tolist() == [*rows, -1, -1, -1]
    everything = joined(batches())
    np.testing.assert_array_equal(whole["image"][:5], everything["image"][rows])
    np.testing.assert_array_equal(whole["label label"][:5], everything["label label"][rows])


def test_no_indices_are_no_batches():
    assert batches(indices=[]) == []


@pytest.mark.parametrize("rows", [[11], [-1], [0, 99]])
def test_indices_of_no_image_are_refused(rows):
    with pytest.raises(DataError, match=r"expected indices in 0\.\.10"):
        batches(indices=rows)


def test_each_camera_of_a_scene_is_an_image():
    whole = joined(batches(prepared.posed(), image_size=16, channels=3, batch=10))
    assert whole["index"].tolist() == list(range(5 * prepared.CAMERAS))
    keys = whole["image"].reshape(20, -1)[:, 0]
    assert (keys % 10).tolist() == [0, 1, 2, 3] * 5
    assert (keys // 10).tolist() == np.repeat(keys[::4] // 10, 4).tolist()
    np.testing.assert_array_equal(whole["label shape"], keys // 10 % 3)


def test_scattered_cameras_are_found():
    rows = [17, 2, 3, 17, 8]
    whole = joined(batches(prepared.posed(), image_size=16, channels=3, batch=10))
    some = joined(batches(prepared.posed(), image_size=16, channels=3, batch=5, indices=rows))
    np.testing.assert_array_equal(some["image"], whole["image"][rows])
    np.testing.assert_array_equal(some["label shape"], whole["label shape"][rows])


@pytest.mark.parametrize("augment", [None, Views(image_size=28, source_size=28, channels=1)])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_side_by_side_are_one_process(processes, augment):
    parts = [batches(process_index=p, process_count=processes, augment=augment) for p in range(processes)]
    together = joined([part for step in zip(*parts, strict=True) for part in step])
    whole = joined(batches(augment=augment))
    for name in whole:
        np.testing.assert_array_equal(together[name], whole[name])


def test_threads_change_nothing():
    one, other = joined(batches()), joined(batches(threads=3))
    assert all((one[name] == other[name]).all() for name in one)


def test_an_augmented_pass_is_one_view_of_each_image():
    views = Views(image_size=14, source_size=20, channels=1)
    plain, first, again = (joined(batches(augment=augment)) for augment in (None, views, views))
    other = joined(batches(augment=views, seed=1))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert (first["image"] != other["image"]).any() and (first["image"] != plain["image"]).any()
    assert first["image"].shape == plain["image"].shape
    np.testing.assert_array_equal(first["index"], plain["index"])


def test_a_pass_can_be_repeated():
    with evaluation_batches(prepared.single(1), "test", batch=4, image_size=28, channels=1) as stream:
        first = list(stream)
        stream.set_state(0)
        assert len(list(stream)) == len(first) == 3


def test_sizes_and_splits_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"config\.data\.source_size = 64"):
        batches(image_size=64)
    with pytest.raises(DataError, match=r"config\.train\.batch"):
        batches(process_count=3)
