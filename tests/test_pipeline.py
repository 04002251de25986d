"""The k-th training batch is one thing: for any number of processes and threads, and after any restart."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import prepare
from data.draws import tapes
from data.errors import DataError
from data.pipeline import evaluation_batches, training_batches
from data.sources import open_data_set
from data.views import Views, decode
from tests import prepared_data as prepared

VIEWS = Views(image_size=24, source_size=28, channels=1)
BATCH = 8  # an epoch of 23 examples ends in the middle of a batch


def batches(count: int, **changes) -> list[dict]:
    with training_batches(
        prepared.single(1), VIEWS, **({"batch": BATCH, "seed": 0, "threads": 0} | changes)
    ) as stream:
        return [next(stream) for _ in range(count)]


def assert_same(one: dict, other: dict) -> None:
    assert set(one) == set(other) == {"source", "target", "index"}
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def assert_all_same(ones: list[dict], others: list[dict]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert_same(one, other)


def joined(parts: list[dict]) -> dict:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_a_batch_is_what_the_spec_says():
    batch = batches(1)[0]
    assert batch["source"].shape == (BATCH, 28, 28, 1) and batch["source"].dtype == np.uint8
    assert batch["target"].shape == (BATCH, 24, 24, 1) and batch["target"].dtype == np.uint8
    assert batch["index"].shape == (BATCH,) and batch["index"].dtype == np.int32


def test_index_is_the_row_of_the_split():
    plain = Views(image_size=28, source_size=28, channels=1, crop_prob=0.0, randaugment_prob=0.0)
    with training_batches(prepared.single(1), plain, batch=BATCH, seed=0, threads=0) as stream:
        batch = next(stream)
    source = prepared.single(1).splits["train"]
    for image, index in zip(batch["source"], batch["index"], strict=True):
        key = int(image.flat[0])
        np.testing.assert_array_equal(image, prepared.noise(key, 28, 28, 1))
        assert source[int(index)]["labels"]["label"] == key % 5


def test_labels_travel_where_they_are_asked_for():
    labelled = Views(image_size=28, source_size=28, channels=1, labels=True)
    with training_batches(prepared.single(1), labelled, batch=BATCH, seed=0, threads=0) as stream:
        batch = next(stream)
    source = prepared.single(1).splits["train"]
    assert batch["labels"].shape == (BATCH, 1) and batch["labels"].dtype == np.int32
    for labels, index in zip(batch["labels"], batch["index"], strict=True):
        assert labels[0] == source[int(index)]["labels"]["label"]
    assert "labels" not in batches(1)[0]


def test_every_epoch_holds_every_example_once_in_another_order():
    rows = np.concatenate([batch["index"] for batch in batches(9)])
    epochs = [rows[start : start + prepared.TRAIN].tolist() for start in range(0, 69, prepared.TRAIN)]
    assert all(sorted(epoch) == list(range(prepared.TRAIN)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_example_is_augmented_anew_in_each_epoch():
    seen = {}
    for batch in batches(9):
        for index, source in zip(batch["index"], batch["source"], strict=True):
            seen.setdefault(int(index), set()).add(source.tobytes())
    assert sum(len(views) for views in seen.values()) > 0.9 * 9 * BATCH


def test_the_seed_decides_order_and_views():
    one, again, other = batches(2), batches(2), batches(2, seed=1)
    assert_all_same(one, again)
    assert (one[0]["index"] != other[0]["index"]).any()


def test_views_follow_from_seed_and_number_alone():
    """An example's views are made by its own numbers, found without the pipeline."""
    batch = batches(3)[2]
    for row, tape in enumerate(tapes(0, 2 * BATCH, BATCH, VIEWS.draws)):
        example = prepared.single(1).splits["train"][int(batch["index"][row])]
        alone = VIEWS.two_views(example, tape)
        np.testing.assert_array_equal(batch["source"][row], alone["source"])
        np.testing.assert_array_equal(batch["target"][row], alone["target"])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_side_by_side_are_one_process(processes):
    """Rows in the same order too, so that the loss's keys, one for each row, meet the same examples."""
    parts = [batches(7, process_index=p, process_count=processes) for p in range(processes)]
    assert parts[0][0]["source"].shape[0] == BATCH // processes
    assert_all_same([joined(part) for part in zip(*parts, strict=True)], batches(7))


@pytest.mark.parametrize("threads, prefetch", [(1, 1), (2, 64), (3, 0)])
def test_threads_change_nothing(threads, prefetch):
    assert_all_same(batches(7, threads=threads, prefetch=prefetch), batches(7))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 6])
def test_a_restart_goes_on_exactly(step, threads):
    """Batch 2 holds the end of one epoch and the start of the next, batch 5 of another."""
    assert_all_same(batches(3, start_step=step, threads=threads), batches(step + 3)[step:])


def test_any_step_is_reached_from_any_other():
    whole = batches(9)
    with training_batches(prepared.single(1), VIEWS, batch=BATCH, seed=0) as stream:
        for step in (6, 0, 6, 8, 3):
            stream.set_state(step)
            assert stream.get_state() == step
            assert_same(next(stream), whole[step])
            assert stream.get_state() == step + 1


def test_a_restart_on_other_processes_goes_on_exactly():
    parts = [batches(2, process_index=p, process_count=4, start_step=5) for p in range(4)]
    assert_all_same([joined(part) for part in zip(*parts, strict=True)], batches(7)[5:])


def test_a_step_of_a_long_run_is_reached_at_once():
    assert_same(batches(1, start_step=10**9)[0], batches(1, start_step=10**9, threads=1)[0])


def test_a_batch_may_be_larger_than_the_data_set():
    assert np.bincount(batches(1, batch=2 * prepared.TRAIN)[0]["index"]).tolist() == [2] * prepared.TRAIN


def test_closing_ends_the_threads_and_may_be_repeated():
    before = threading.active_count()
    stream = training_batches(prepared.single(1), VIEWS, batch=BATCH, seed=0)
    first = next(stream)
    stream.close()
    stream.close()
    deadline = time.monotonic() + 60  # a batch under way is finished first
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert_same(next(stream), batches(2)[1])
    stream.close()
    assert first["source"].flags.owndata


def test_never_asked_is_never_opened():
    stream = training_batches(prepared.single(1), VIEWS, batch=BATCH, seed=0, start_step=4)
    assert stream.get_state() == 4
    stream.close()


def test_scenes_are_paired_by_camera():
    views = Views(image_size=16, source_size=32, pair="pose")
    with training_batches(prepared.posed(), views, batch=4, seed=0, threads=1) as stream:
        batch = next(stream)
    assert batch["source"].shape == (4, 32, 32, 3) and batch["target"].shape == (4, 16, 16, 3)
    for index, target in zip(batch["index"], batch["target"], strict=True):
        cameras = prepared.posed().splits["train"][int(index)]["images"]
        assert int(target.flat[0]) in [int(decode(camera, 3).flat[0]) for camera in cameras]


def test_cameras_travel_with_their_images():
    """The first value of an image tells which camera took it."""
    views = Views(image_size=16, source_size=16, pair="pose", cameras=True)
    with training_batches(prepared.posed(), views, batch=8, seed=0, threads=1) as stream:
        batch = next(stream)
    for name in ("source", "target"):
        keys = batch[name][:, 0, 0, 0]
        np.testing.assert_array_equal(
            batch[f"{name}_camera"], [prepared.camera_to_world(int(k)) for k in keys]
        )
    unit = [[20 / 16, 0, 0.5], [0, 24 / 16, 0.5], [0, 0, 1]]
    np.testing.assert_allclose(batch["intrinsics"], np.tile(unit, (8, 1, 1)), rtol=1e-6)


def test_rays_of_views_without_cameras_are_refused():
    sizes = {"image_size": 16, "source_size": 16, "cameras": True}
    refused(
        r"config\.model\.rays .*'pose_augment' moves.*'none'", prepared.posed(), pair="pose_augment", **sizes
    )
    refused(r"config\.model\.rays .*'augment' moves", prepared.posed(), pair="augment", **sizes)
    splits = {name: dataclasses.replace(s, cameras=False) for name, s in prepared.posed().splits.items()}
    without = dataclasses.replace(prepared.posed(), splits=splits)
    refused(r"config\.model\.rays .*'posed' has none.*'none'", without, pair="pose", **sizes)


def refused(match: str, dataset=None, **changes) -> None:
    config = {"image_size": 28, "source_size": 28, "channels": 1}
    views = Views(
        **config | {k: v for k, v in changes.items() if k not in ("batch", "seed", "process_count")}
    )
    rest = {"batch": 8, "seed": 0} | {
        k: v for k, v in changes.items() if k in ("batch", "seed", "process_count")
    }
    with pytest.raises(DataError, match=match) as error:
        training_batches(dataset or prepared.single(1), views, **rest)
    assert "\n" not in str(error.value)


def test_sizes_that_do_not_fit_are_refused():
    refused(r"config\.data\.image_size = 57 .* 28 x 28 .* 56 or less", image_size=57)
    refused(r"config\.data\.source_size = 64 .* 28 x 28 .* 56 or less", source_size=64)
    refused(
        r"config\.data\.image_size = 5 .* 16 x 16 .*'posed'", prepared.posed(), image_size=5, source_size=16
    )
    refused(r"config\.data\.source_size = 5 ", prepared.posed(), image_size=8, source_size=5)


def test_cameras_of_single_images_are_refused():
    refused(r"config\.data\.pair = 'pose' needs several cameras.*'single1'", pair="pose")


def test_batches_and_seeds_that_do_not_fit_are_refused():
    refused(r"config\.train\.batch = 6: .* multiple of the 4 processes", batch=6, process_count=4)
    refused(r"config\.train\.batch = 0", batch=0)
    refused(r"config\.seed = -1", seed=-1)
    refused(r"config\.seed = 4294967296", seed=2**32)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_image_stops_the_stream_with_its_own_error(tmp_path, threads):
    rows = [*prepared.single_rows(0, 3, 28, 28, 1), {"image": b"\x89PNG, cut off", "label": 0}]
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=5),
    }
    prepared.prepare("damaged", features, {"train": rows}, place=tmp_path)
    stream = training_batches(open_data_set("damaged", tmp_path), VIEWS, batch=4, seed=0, threads=threads)
    with stream, pytest.raises(DataError, match=r"cannot be decoded.*config\.data\.dir"):
        next(stream)


def test_a_folder_of_images_goes_all_the_way(tmp_path):
    """`python -m data.prepare folder`, then batches: images of several sizes and kinds, by class."""
    for place, shape in (("train/a/1", (40, 30, 3)), ("train/b/2", (64, 64, 1)), ("test/b/3", (32, 99, 3))):
        path = tmp_path / "images" / f"{place}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(prepared.png(prepared.noise(7, *shape)))
    assert (
        prepare.main(["folder", f"--source={tmp_path}/images", "--name=mine", f"--data_dir={tmp_path}/data"])
        == 0
    )
    dataset = open_data_set("mine", tmp_path / "data")
    assert dataset.label_names == {"label": ["a", "b"]} and dataset.image_shape[2] == 3
    with training_batches(
        dataset, Views(image_size=32, source_size=24), batch=2, seed=0, threads=0
    ) as stream:
        assert sorted(next(stream)["index"].tolist()) == [0, 1]
    with evaluation_batches(dataset, "test", batch=1, image_size=32, channels=3) as stream:
        assert next(stream)["labels"]["label"].tolist() == [1]
