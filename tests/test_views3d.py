"""views3d as a data set: factors, splits, records as they are read back."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.builders import store, views3d
from data.builders.views3d_render import render
from data.sources import open_data_set

TINY = views3d.Plan(train=5, test=3, views=2)


def test_the_data_set_has_4096_and_512_scenes_of_8_views():
    recipe = views3d.recipe()
    assert {name: split.size for name, split in recipe.splits.items()} == {"train": 4096, "test": 512}
    assert (recipe.views, recipe.image_shape) == (8, (64, 64, 3))


def test_no_two_scenes_share_their_factors_even_without_the_yaw():
    factors = views3d.draw_factors(views3d.Plan())
    assert factors.shape == (4608, 6)
    assert len(np.unique(factors[:, :-1], axis=0)) == 4608


def test_every_class_is_about_equally_frequent_in_both_splits():
    factors = views3d.draw_factors(views3d.Plan())
    for rows in (factors[:4096], factors[4096:]):
        for column, names in zip(rows.T, views3d.FACTORS.values(), strict=True):
            counts = np.bincount(column, minlength=len(names))
            expected = len(rows) / len(names)
            assert counts.shape == (len(names),)
            assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_factors_are_independent_of_each_other():
    correlations = np.corrcoef(views3d.draw_factors(views3d.Plan()).T) - np.eye(6)
    assert np.abs(correlations).max() < 0.06


def test_factors_and_cameras_come_from_the_seed():
    again, other = views3d.Plan(), views3d.Plan(seed=1)
    np.testing.assert_array_equal(views3d.draw_factors(views3d.Plan()), views3d.draw_factors(again))
    assert (views3d.draw_factors(other) != views3d.draw_factors(again)).any(1).mean() > 0.9
    first, second = (views3d.cameras_of(again, scene).azimuth for scene in (0, 1))
    np.testing.assert_array_equal(first, views3d.cameras_of(again, 0).azimuth)
    assert not np.any(first == second)
    assert not np.any(first == views3d.cameras_of(other, 0).azimuth)


def test_too_many_scenes_are_refused():
    with pytest.raises(ValueError, match="at most 16384 scenes, one per combination, found 16385"):
        views3d.draw_factors(views3d.Plan(train=16384, test=1))


def test_names_of_classes_are_those_of_what_is_drawn():
    classes = np.array([list(views3d.SOLIDS).index("cone"), 5, 3, 1, 2, 3])
    scene = views3d.scene_of(classes)
    assert scene.solid is views3d.SOLIDS["cone"]
    assert scene.scale == views3d.SIZES["large"]
    assert np.rad2deg(scene.yaw) == pytest.approx(67.5)
    assert scene.colour.argmax() == 2, "blue"
    assert scene.floor.argmax() == 1, "green"
    assert scene.wall[0] > scene.wall[1] > scene.wall[2], "orange"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("views3d")
    return place, store.write(views3d.recipe(TINY), place)


def test_records_read_back_as_they_were_made(prepared):
    _, folder = prepared
    factors = views3d.draw_factors(TINY)
    rows = tfds.builder_from_directory(folder).as_data_source("train")
    seen = set()
    for row in (rows[i] for i in range(5)):
        classes = np.array([row[name] for name in views3d.FACTORS])
        scene = int(np.flatnonzero((factors == classes).all(1))[0])
        seen.add(scene)
        cameras = views3d.cameras_of(TINY, scene)
        images = render(views3d.scene_of(classes), cameras.camera_to_world)
        decoded = [
            cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for b in row["images"]
        ]
        np.testing.assert_array_equal(decoded, images)
        np.testing.assert_array_equal(row["camera_to_world"], cameras.camera_to_world)
        np.testing.assert_array_equal(row["elevation"], cameras.elevation)
        assert row["intrinsics"].dtype == np.float32
        assert row["intrinsics"][0, 2] == 31.5
    assert seen == set(range(5)), "train holds the first scenes"


def test_the_pipeline_sees_scenes_with_all_factors_as_labels(prepared):
    data_set = open_data_set("views3d", prepared[0])
    assert data_set.views == TINY.views
    assert data_set.image_shape == (64, 64, 3)
    assert data_set.labels == {name: len(names) for name, names in views3d.FACTORS.items()}
    assert (len(data_set.splits["train"]), len(data_set.splits["test"])) == (5, 3)


def test_preparing_again_gives_the_same_bytes(prepared, tmp_path):
    again = store.write(views3d.recipe(TINY), tmp_path)
    for shard in sorted(prepared[1].glob("*array_record*")):
        assert (again / shard.name).read_bytes() == shard.read_bytes()


def test_two_processes_make_the_same_records_as_one():
    factors = views3d.draw_factors(TINY)
    many = views3d.workers.ordered_map(
        views3d.functools.partial(views3d.example, plan=TINY, factors=factors), range(4), processes=2, chunk=1
    )
    for scene, record in enumerate(many):
        alone = views3d.example(scene, TINY, factors)
        assert list(record["images"]) == list(alone["images"])
