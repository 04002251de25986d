"""Cameras of views3d: the OpenCV convention, checked against what is drawn."""

import numpy as np
import pytest

from data.builders import views3d, views3d_cameras
from data.builders.views3d_render import render
from data.builders.views3d_room import Scene
from data.builders.views3d_solids import SOLIDS

GREY = np.full(3, 0.5, np.float32)
BLACK, WHITE = np.zeros(3, np.float32), np.ones(3, np.float32)


def drawn(count: int = 8):
    return views3d_cameras.draw(np.random.default_rng(5), count)


def project(points, camera_to_world):
    """World points [n, 3] to pixels [n, 2] by OpenCV's formula: K (R^T (p - o)), divided by depth."""
    local = (points - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
    pixels = local @ views3d_cameras.intrinsics().T
    assert np.all(pixels[:, 2] > 0), "behind the camera"
    return pixels[:, :2] / pixels[:, 2:]


def room_of(solid="sphere", scale=1.0, colour=GREY, floor=WHITE, wall=WHITE):
    return Scene(solid=SOLIDS[solid], scale=scale, yaw=0.3, colour=colour, floor=floor, wall=wall)


def test_rotations_are_right_handed_and_orthonormal():
    turns = drawn().camera_to_world[:, :3, :3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (8, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-6)
    np.testing.assert_array_equal(drawn().camera_to_world[:, 3], np.tile([0, 0, 0, 1], (8, 1)))


def test_x_is_level_y_points_down_and_z_at_the_target():
    cameras = drawn()
    x, y, z, origin = (cameras.camera_to_world[:, :3, column] for column in range(4))
    np.testing.assert_allclose(x[:, 2], 0, atol=1e-6)
    assert np.all(y[:, 2] < 0)
    np.testing.assert_allclose(
        origin + cameras.distance[:, None] * z, np.tile(views3d_cameras.TARGET, (8, 1)), atol=1e-5
    )


def test_angles_and_distance_are_those_of_the_matrix():
    cameras = drawn(50)
    away = cameras.camera_to_world[:, :3, 3] - views3d_cameras.TARGET
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), cameras.distance, rtol=1e-5)
    np.testing.assert_allclose(
        np.rad2deg(np.arcsin(away[:, 2] / cameras.distance)), cameras.elevation, atol=1e-3
    )
    np.testing.assert_allclose(np.rad2deg(np.arctan2(away[:, 0], -away[:, 1])), cameras.azimuth, atol=1e-3)


@pytest.mark.parametrize("name", ["azimuth", "elevation", "distance"])
def test_draws_fill_their_range(name):
    low, high = getattr(views3d_cameras, name.upper())
    values = getattr(drawn(2000), name)
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high >= values.max() > high - 0.02 * (high - low)


def test_pixel_rays_pass_through_the_pixels():
    inside = np.array([[0.0, 0.0], [0.25, -0.5]])
    rays = views3d_cameras.pixel_rays(inside).astype(np.float64)
    pixels = np.einsum("ij,jnk->ink", views3d_cameras.intrinsics(), rays)
    pixels = (pixels[:2] / pixels[2]).reshape(2, 64, 64, 2)
    rows, columns = np.mgrid[:64, :64]
    np.testing.assert_allclose(pixels[0], columns[..., None] + inside[:, 0], atol=1e-4)
    np.testing.assert_allclose(pixels[1], rows[..., None] + inside[:, 1], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=0), 1, atol=1e-6)


def test_a_ball_is_drawn_where_the_matrices_project_it():
    cameras = drawn().camera_to_world
    scale = 0.7
    dark, bright = (render(room_of(scale=scale, colour=c), cameras).astype(int) for c in (BLACK, WHITE))
    for camera, changed in zip(cameras, np.abs(bright - dark).sum(-1), strict=True):
        rows, columns = np.nonzero(changed > 20)
        centre = project(np.array([[0, 0, SOLIDS["sphere"].middle * scale]]), camera)[0]
        np.testing.assert_allclose([columns.mean(), rows.mean()], centre, atol=0.3)


def test_the_join_of_floor_and_wall_is_drawn_where_the_matrices_project_it():
    cameras = drawn().camera_to_world
    images = render(room_of(scale=0.3, floor=WHITE, wall=BLACK), cameras)
    join = np.stack([np.linspace(-4, 4, 200), np.full(200, views3d_cameras.WALL), np.zeros(200)], axis=1)
    seen = 0
    for camera, image in zip(cameras, images, strict=True):
        for u, v in project(join, camera):
            column, row = round(u), round(v)
            if 0 <= column < 64 and 3 <= row < 61 and abs(u - column) < 0.1:
                seen += 1
                assert image[row - 2, column].max() == 0, "wall above the join"
                assert image[row + 2, column].min() > 60, "floor below the join"
    assert seen > 20


def test_a_point_to_the_right_is_drawn_to_the_right():
    facing = views3d_cameras.place(np.zeros(1), np.full(1, 20.0), np.full(1, 5.0)).camera_to_world[0]
    (left, _), (right, _) = project(np.array([[-1.0, 0, 0], [1.0, 0, 0]]), facing)
    (_, high), (_, low) = project(np.array([[0, 0, 1.0], [0, 0, 0]]), facing)
    assert left < 31.5 < right
    assert high < low


def test_the_largest_solids_stay_within_the_frame():
    angles = np.meshgrid([-20.0], [12.0, 48.0], [views3d_cameras.DISTANCE[0]])
    cameras = views3d_cameras.place(*(a.ravel() for a in angles)).camera_to_world
    for name in SOLIDS:
        pair = [
            render(room_of(name, max(views3d.SIZES.values()), c), cameras).astype(int) for c in (BLACK, WHITE)
        ]
        changed = np.abs(pair[0] - pair[1]).max(-1) > 0
        border = np.ones((64, 64), bool)
        border[1:-1, 1:-1] = False
        assert not (changed & border).any(), name
