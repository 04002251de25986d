"""Masks and keypoints of views3d: against the camera matrices, and rays of their own."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.builders import store, views3d, views3d_cameras, views3d_labels, views3d_render
from data.builders.views3d_room import Scene
from data.builders.views3d_solids import SOLIDS
from data.dense_info import HIDDEN, SEEN, UNLABELLED, DenseInfo, from_metadata
from tests.test_views3d_cameras import drawn, project

GREY = np.full(3, 0.5, np.float32)
SIDE = views3d_cameras.SIDE


def scene_of(name, scale=1.0, yaw=0.3):
    return Scene(solid=SOLIDS[name], scale=scale, yaw=yaw, colour=GREY, floor=GREY, wall=GREY)


def labelled(name, cameras, scale=1.0):
    """Masks and keypoints of a solid, as a record has them."""
    scene = scene_of(name, scale)
    _, cover = views3d_render.render_with_cover(scene, cameras)
    masks = views3d_labels.class_maps(cover, cameras)
    return masks, views3d_labels.keypoints(scene, cameras, masks)


@pytest.mark.parametrize("name", SOLIDS)
def test_the_object_is_where_rays_hit_the_solid(name):
    """Every ray of every pixel, traced anew, from far away and to the end: all hit, or none comes near."""
    camera, scale = drawn().camera_to_world[3], 0.84
    scene = scene_of(name, scale)
    rays = scene.to_local() @ camera[:3, :3] @ views3d_render._FINE.reshape(3, -1)
    start = np.repeat(scene.to_local() @ camera[:3, 3:] / np.float32(scale), rays.shape[1], 1)
    along, least = np.full(rays.shape[1], 3.5, np.float32), np.full(rays.shape[1], 9.0, np.float32)
    for _ in range(80):
        gap = SOLIDS[name].distance(*(start + along * rays))
        least, along = np.minimum(least, gap), np.minimum(along + np.maximum(gap, 0), 9)
    hit, near = (np.sum(least.reshape(SIDE, SIDE, 4) < gap, -1) for gap in (0.003, 0.013))
    mask = labelled(name, camera[None], scale)[0][0] == views3d_labels.OBJECT
    assert np.all(mask[hit == 4]) and not np.any(mask[near <= 1])
    assert np.mean(mask[hit >= 2]) > 0.97 and np.sum(near == 1) > 5
    assert 200 < mask.sum() < 2000


def test_the_cover_is_what_the_picture_shows():
    """Where the colour of the solid changes the picture, and by how much of the pixel."""
    cameras = drawn(2).camera_to_world
    scene = scene_of("cone")
    colours = {colour: np.full(3, colour, np.float32) for colour in (0, 1)}
    changed = [
        views3d_render.render_with_cover(Scene(**{**vars(scene), "colour": colour}), cameras)
        for colour in colours.values()
    ]
    (black, cover), (white, again) = changed
    np.testing.assert_array_equal(cover, again)
    assert cover.min() == 0 and cover.max() == 1
    apart = np.abs(white.astype(int) - black).max(-1)
    np.testing.assert_array_equal(apart[cover == 0], 0)
    assert np.all(apart[cover >= 0.25] > 10)


def test_floor_and_wall_are_what_a_ray_through_the_pixel_meets_first():
    cameras = drawn().camera_to_world
    masks, _ = labelled("sphere", cameras, 0.3)
    rays = cameras[:, :3, :3] @ views3d_cameras.pixel_rays(np.zeros((1, 2)))[..., 0]
    origin = cameras[:, :3, 3:]
    with np.errstate(divide="ignore"):
        to_floor = np.where(rays[:, 2] < 0, -origin[:, 2] / rays[:, 2], np.inf)
        to_wall = np.where(rays[:, 1] > 0, (views3d_cameras.WALL - origin[:, 1]) / rays[:, 1], np.inf)
    room, found = np.where(to_floor < to_wall, 1, 0), masks.reshape(len(masks), -1)
    empty = found != views3d_labels.OBJECT
    assert np.mean(found[empty] == room[empty]) > 0.998  # but for pixels that the join halves
    assert 0.1 < room.mean() < 0.9


@pytest.mark.parametrize("name", SOLIDS)
def test_centre_and_top_lie_where_the_matrices_project_them(name):
    cameras, scale = drawn().camera_to_world, 1.16
    masks, found = labelled(name, cameras, scale)
    heights = {"cube": 1.24, "sphere": 1.56, "cylinder": 1.4, "torus": 1.56, "pill": 0.96}
    for camera, points, mask in zip(cameras, found["keypoints"], masks, strict=True):
        world = np.array([[0, 0, SOLIDS[name].middle * scale], [0, 0, heights.get(name, 0) * scale]])
        expected = project(world, camera)
        np.testing.assert_allclose(points[0], expected[0], atol=1e-3)
        column, row = np.rint(points[0]).astype(int)
        assert mask[row, column] == views3d_labels.OBJECT or name == "torus"  # whose hole it is
        if name in heights:
            np.testing.assert_allclose(points[1], expected[1], atol=0.03)


def test_the_top_of_every_solid_is_where_its_distance_is_nothing():
    for name, solid in SOLIDS.items():
        height = np.float32(views3d_labels.top(solid))
        zero = np.float32(0)
        assert abs(solid.distance(zero, zero, height)) < 1e-5, name
        assert solid.distance(zero, zero, height + np.float32(0.01)) > 0, name


@pytest.mark.parametrize("name", SOLIDS)
def test_extremes_lie_on_the_hull_of_the_object(name):
    masks, found = labelled(name, drawn().camera_to_world)
    for mask, points, scale in zip(masks, found["keypoints"], found["keypoint_scale"], strict=True):
        shown = (mask == views3d_labels.OBJECT).astype(np.uint8)
        pixels = cv2.findNonZero(shown)
        hull = cv2.convexHull(pixels)
        for x, y in points[2:]:
            assert abs(cv2.pointPolygonTest(hull, (float(x), float(y)), True)) <= 1.0
        left, top, width, height = cv2.boundingRect(pixels)
        box = [points[2, 0], points[4, 1], points[3, 0], points[5, 1]]
        assert box == [left, top, left + width - 1, top + height - 1]
        assert scale == pytest.approx(np.hypot(width, height))


@pytest.mark.parametrize("name", ["cube", "sphere", "cylinder", "pill"])
def test_the_top_is_seen_from_above_its_tangent_plane_alone(name):
    """It is level there, and the solid is convex."""
    elevation = np.linspace(1.0, 48.0, 40)
    cameras = views3d_cameras.place(np.full(40, 20.0), elevation, np.full(40, 5.0)).camera_to_world
    above = cameras[:, 2, 3] - 1.16 * views3d_labels.top(SOLIDS[name])
    found = views3d_labels.sees(scene_of(name, 1.16), cameras, 1.16 * views3d_labels.top(SOLIDS[name]))
    clear = np.abs(above) > 0.15
    np.testing.assert_array_equal(found[clear], above[clear] > 0)
    assert found.any() and not (name in ("sphere", "cylinder") and found.all())


def test_what_leaves_the_image_is_not_labelled_and_what_is_behind_is_hidden():
    """A camera that looks past the solid, from below its top."""
    camera = views3d_cameras.place(np.zeros(1), np.full(1, 1.0), np.full(1, 5.0)).camera_to_world
    camera[0, :3, 3] += np.array([1.9, 0, 0], np.float32)
    masks, found = labelled("cylinder", camera)
    assert masks[0, 40, 0] == views3d_labels.OBJECT
    assert found["keypoints_seen"][0].tolist() == [UNLABELLED, UNLABELLED, SEEN, SEEN, SEEN, SEEN]
    camera[0, :3, 3] -= np.array([1.9, 0, 0], np.float32)
    assert labelled("cylinder", camera)[1]["keypoints_seen"][0].tolist() == [SEEN, HIDDEN, *[SEEN] * 4]


def test_extremes_of_a_mask_by_hand():
    shown = np.zeros((5, 6), bool)
    shown[1, 2] = shown[1, 4] = shown[2, 1:6] = shown[3, 3] = True
    points, diagonal = views3d_labels.extremes(shown)
    assert points.tolist() == [[1, 2], [5, 2], [3, 1], [3, 3]]
    assert diagonal == pytest.approx(np.hypot(5, 3))
    with pytest.raises(ValueError, match="has no extremes"):
        views3d_labels.extremes(np.zeros((5, 6), bool))


def test_records_hold_them_and_the_metadata_say_what_they_are(tmp_path):
    plan = views3d.Plan(train=2, test=1, views=2)
    folder = store.write(views3d.recipe(plan), tmp_path)
    builder = tfds.builder_from_directory(folder)
    assert from_metadata(builder.info.metadata) == views3d_labels.INFO
    factors, rows = views3d.draw_factors(plan), builder.as_data_source("train")
    for row in (rows[i] for i in range(2)):
        classes = np.array([row[name] for name in views3d.FACTORS])
        scene = int(np.flatnonzero((factors == classes).all(1))[0])
        expected = views3d.example(scene, plan, factors)
        assert list(row["masks"]) == list(expected["masks"])
        for name in ("keypoints", "keypoints_seen", "keypoint_scale"):
            np.testing.assert_array_equal(row[name], expected[name])
        mask = cv2.imdecode(np.frombuffer(row["masks"][1], np.uint8), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (64, 64) and np.unique(mask).tolist() == [0, 1, 2]


def test_metadata_without_them_stand_for_none():
    assert from_metadata(None) == from_metadata({"views": 2}) == DenseInfo()
