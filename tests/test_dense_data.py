"""Masks and keypoints on their way to the devices: read when asked for, moved as their images are."""

import functools
import json
import shutil

import cv2
import numpy as np
import pytest

from data import dense
from data.builders import store, views3d
from data.builders.images import encode_png
from data.dense_info import HIDDEN, IGNORED, SEEN, UNLABELLED
from data.dense_views import DenseViews
from data.errors import DataError
from data.pipeline import evaluation_batches, training_batches
from data.sources import open_data_set
from data.views import Views
from tests import prepared_data

PLAN = views3d.Plan(train=3, test=2, views=3)
SIZE = 33


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    store.write(views3d.recipe(PLAN), folder)
    return folder


def views(task, size=SIZE, **changes):
    return DenseViews(**{"image_size": size, "source_size": size, "channels": 1, "task": task, **changes})


def drawn_example(task, spots=((8, 20), (25, 12))):
    """A black image with a bright and a dim disc at (x, y), which are the classes and the points."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    for number, spot in enumerate(spots):
        cv2.circle(image, spot, 4, 200 - 100 * number, -1)
    mask = np.where(image > 150, 1, np.where(image > 50, 2, 0)).astype(np.uint8)
    example = {"images": [encode_png(image)], "index": 3, "labels": {}, "shape": (SIZE, SIZE)}
    if task == "segmentation":
        return {**example, "masks": [encode_png(mask)]}
    seen = np.array([[SEEN, HIDDEN]], np.int32)
    return {**example, "keypoints": np.array([spots], np.float32), "seen": seen, "scale": np.float32([10])}


def centroid(weights):
    rows, columns = np.nonzero(weights)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("task", dense.TASKS)
def test_examples_hold_the_truth_that_was_built_when_it_is_asked_for(place, task):
    plain = open_data_set("views3d", place)
    asked = dense.with_truth(plain, task)
    factors = views3d.draw_factors(PLAN)
    for index in range(3):
        example = asked.split("train")[index]
        classes = np.array([example["labels"][name] for name in views3d.FACTORS])
        scene = int(np.flatnonzero((factors == classes).all(1))[0])
        expected = views3d.example(scene, PLAN, factors)
        if task == "segmentation":
            assert example["masks"] == list(expected["masks"])
        else:
            for name, stored in (
                ("keypoints", "keypoints"),
                ("seen", "keypoints_seen"),
                ("scale", "keypoint_scale"),
            ):
                np.testing.assert_array_equal(example[name], expected[stored])
        assert plain.split("train")[index].keys() == {
            "images",
            "labels",
            "index",
            "camera_to_world",
            "intrinsics",
        }


def test_data_sets_without_them_say_what_to_do_and_serve_all_else(place, tmp_path):
    """Of views3d as it was before: prepare it again; of others: take another."""
    old = tmp_path / "plain" / "views3d" / "1.0.0"
    shutil.copytree(open_data_set("views3d", place).path, old)
    metadata = json.loads((old / "metadata.json").read_text())
    del metadata["dense"]
    (old / "metadata.json").write_text(json.dumps(metadata))
    found = open_data_set("views3d", tmp_path / "plain")
    with pytest.raises(DataError, match=f"python -m data.prepare views3d --data_dir={tmp_path}/plain$"):
        dense.with_truth(found, "segmentation")
    with training_batches(
        found, Views(image_size=32, source_size=64, pair="pose"), batch=2, seed=0
    ) as batches:
        assert next(batches)["source"].shape == (2, 64, 64, 3)
    prepared_data.single(1)
    other = open_data_set("single1", prepared_data.data_dir())
    assert dense.info_of(other).points == ()
    with pytest.raises(DataError, match=r"has no keypoints, which --task=landmarks is trained on: take one"):
        dense.with_truth(other, "landmarks")


@pytest.mark.parametrize("mirror", [0.0, 1.0])
@pytest.mark.parametrize(("rotation", "zoom"), [(0.0, 0.0), (40.0, 0.2)])
def test_masks_and_points_move_with_their_image(mirror, rotation, zoom):
    """The discs of the image are found where the mask and the points say."""
    made = views("segmentation", rotation=rotation, zoom=zoom, mirror=mirror)
    points = views("landmarks", rotation=rotation, zoom=zoom, mirror=mirror)
    unknown = []
    for seed in range(8):
        a = made.two_views(drawn_example("segmentation"), np.random.default_rng(seed))
        b = points.two_views(drawn_example("landmarks"), np.random.default_rng(seed))
        np.testing.assert_array_equal(a["source"], b["source"])
        image, mask = a["source"][..., 0], a["mask"]
        for number, grey in enumerate((200, 100)):
            assert np.mean(mask[image == grey] == number + 1) > 0.95
        bright = image > 150
        if not (bright[0].any() or bright[-1].any() or bright[:, 0].any() or bright[:, -1].any()):
            for shown in (bright, mask == 1):
                np.testing.assert_allclose(b["points"][0], centroid(shown), atol=0.4)
        length = np.linalg.norm(b["points"][1] - b["points"][0])
        assert b["scale"] == pytest.approx(10 * length / np.hypot(17, 8), rel=1e-4)
        unknown.append((mask == IGNORED).any())
    assert any(unknown) == (rotation > 0)


def test_a_mirror_image_exchanges_the_points_of_a_pair():
    made = views("landmarks", mirror=1.0, pairs=((0, 1),)).two_views(
        drawn_example("landmarks"), np.random.default_rng(0)
    )
    assert made["points"].tolist() == [[SIZE - 1 - 25, 12], [SIZE - 1 - 8, 20]]
    assert made["seen"].tolist() == [HIDDEN, SEEN]
    assert made["source"][20, SIZE - 1 - 8] == 200


def test_points_that_leave_the_image_are_not_labelled():
    edge = drawn_example("landmarks", spots=((1, 16), (16, 16)))
    seen = [
        views("landmarks", zoom=0.5).two_views(edge, np.random.default_rng(seed))["seen"].tolist()
        for seed in range(6)
    ]
    assert [UNLABELLED, HIDDEN] in seen and [SEEN, HIDDEN] in seen


def test_the_middle_square_is_scaled_and_points_with_it():
    """A picture of 48 x 32: its left and right eighths are cut, and a point at the corner stays there."""
    mask = np.zeros((32, 48), np.uint8)
    mask[:16, 8:24] = 7
    example = {"masks": [encode_png(mask)], "shape": (32, 48)}
    small = dense.truth(example, 0, 16)["mask"]
    assert small.shape == (16, 16) and np.all(small[:8, :8] == 7) and small.sum() == 64 * 7
    places = np.array([[[7.5, -0.5], [39.5, 31.5], [23.5, 15.5], [2.0, 5.0]]], np.float32)
    points = {"keypoints": places, "seen": np.full((1, 4), SEEN), "scale": np.float32([8]), "shape": (32, 48)}
    found = dense.truth(points, 0, 16)
    np.testing.assert_allclose(found["points"][:3], [[-0.5, -0.5], [15.5, 15.5], [7.5, 7.5]])
    assert found["seen"].tolist() == [SEEN, SEEN, SEEN, UNLABELLED] and found["scale"] == 4


def test_colours_change_and_nothing_else_does():
    plain, other = (
        views("segmentation", colour=colour).two_views(
            drawn_example("segmentation"), np.random.default_rng(1)
        )
        for colour in (0.0, 0.8)
    )
    np.testing.assert_array_equal(plain["mask"], other["mask"])
    assert np.any(plain["source"] != other["source"])


@pytest.mark.parametrize("task", dense.TASKS)
def test_evaluation_has_the_truth_of_every_image_and_zeros_where_there_is_none(place, task):
    dataset = dense.with_truth(open_data_set("views3d", place), task)
    known = functools.partial(dense.truth, size=32)
    read = {"batch": 8, "image_size": 32, "channels": 3, "beside": known}
    with evaluation_batches(dataset, "test", **read) as batches:
        (batch,) = list(batches)
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    with evaluation_batches(dataset, "test", batch=8, image_size=32, channels=3) as plain:
        assert next(plain).keys() == {"image", "labels", "index", "valid"}
    name = "mask" if task == "segmentation" else "points"
    for row in range(6):
        expected = dense.truth(dataset.split("test")[row // 3], row % 3, 32)
        np.testing.assert_array_equal(batch[name][row], expected[name])
    assert not batch[name][6:].any()
    with evaluation_batches(
        dataset, "test", **read, process_index=1, process_count=8, indices=[4]
    ) as batches:
        (alone,) = list(batches)
    assert alone[name].shape == (1, *batch[name].shape[1:]) and not alone[name].any()


def test_training_batches_are_the_same_for_one_process_and_for_two(place):
    dataset = dense.with_truth(open_data_set("views3d", place), "landmarks")
    moving = views("landmarks", size=32, channels=3, zoom=0.2, mirror=0.5, pairs=((2, 3),))
    with training_batches(dataset, moving, batch=4, seed=1) as batches:
        whole = [next(batches) for _ in range(2)]
    for process in range(2):
        with training_batches(
            dataset, moving, batch=4, seed=1, process_index=process, process_count=2
        ) as batches:
            for batch in whole:
                part, rows = next(batches), slice(2 * process, 2 * process + 2)
                assert part.keys() == batch.keys() == {"source", "index", "points", "seen", "scale"}
                for name in part:
                    np.testing.assert_array_equal(part[name], batch[name][rows])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zoom": 1.0}, "zoom = 1.0: expected 0 or more, and below 1"),
        ({"mirror": 2.0}, "mirror = 2.0: expected a probability"),
        ({"colour": -1.0}, "colour = -1.0: expected 0 to 1"),
        ({"rotation": 200.0}, "rotation = 200.0: expected 0 to 180 degrees"),
        (
            {"rotation": 5.0, "upright": True},
            "rotation = 5.0: expected 0: keypoints of this data set are extremes",
        ),
        ({"task": "depth"}, "task = 'depth': expected one of segmentation, landmarks"),
    ],
)
def test_wrong_values_are_told_by_key(changes, words):
    with pytest.raises(DataError, match=rf"config\.dense\.{words}"):
        views(**{"task": "landmarks", **changes})


def test_a_mask_that_is_none_is_told():
    for bad in (b"", b"no png", encode_png(np.zeros((4, 4, 3), np.uint8))):
        with pytest.raises(DataError, match="expected a mask of one channel"):
            dense.decode_mask(bad)
