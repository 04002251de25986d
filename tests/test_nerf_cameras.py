"""Cameras of transforms files: known answers, NeRF's own rays, and everything that is no camera."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.builders import nerf_cameras, views3d, views3d_cameras
from data.errors import DataError
from data.views import cameras_of
from soda_jax.nn.rays import directions
from tests.posed_files import ANGLE, opengl

LEGO = (
    0.6911112070083618  # camera_angle_x of the Blender scenes, whose focal length is 1111.111 pixels of 800
)


def random_camera(seed: int = 0) -> np.ndarray:
    """A rigid matrix, OpenGL or OpenCV as one likes."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn[:, 0] *= np.linalg.det(turn)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, random.normal(size=3)
    return matrix


def nerf_directions(matrix, focal: float, height: int, width: int) -> np.ndarray:
    """Rays as the NeRF code makes them of an OpenGL camera, through the middle of each pixel, unit length."""
    i, j = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    local = np.stack([(i - width / 2) / focal, -(j - height / 2) / focal, -np.ones_like(i)], -1)
    rays = (local[..., None, :] * matrix[:3, :3]).sum(-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def refused(function, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_untouched_blender_camera_looks_down_with_y_up():
    found = nerf_cameras.camera_to_world([[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4], [0, 0, 0, 1]])
    right, down, forward, place = found[:3].T
    assert right.tolist() == [1, 0, 0] and down.tolist() == [0, -1, 0] and forward.tolist() == [0, 0, -1]
    assert place.tolist() == [2, 3, 4] and found.dtype == np.float32


def test_cameras_come_back_from_the_other_convention():
    for camera in views3d.cameras_of(views3d.Plan(), 3).camera_to_world:
        np.testing.assert_array_equal(nerf_cameras.camera_to_world(opengl(camera)), camera)


def test_rays_are_those_of_the_nerf_code():
    matrix = random_camera()
    example = {
        "camera_to_world": nerf_cameras.camera_to_world(matrix.tolist())[None],
        "intrinsics": nerf_cameras.intrinsics({"camera_angle_x": 0.8}, 6, 10),
    }
    found = cameras_of(example, 0, 0, (6, 10, 3))
    camera, unit = (jnp.asarray(found[name])[None] for name in ("target_camera", "intrinsics"))
    expected = nerf_directions(matrix, 5 / math.tan(0.4), 6, 10)
    rays = jax.jit(directions, static_argnums=(2, 3))(camera, unit, 6, 10)
    np.testing.assert_allclose(rays[0], expected, atol=1e-6)


def test_focal_lengths_by_hand():
    lego = nerf_cameras.intrinsics({"camera_angle_x": LEGO}, 800, 800)
    np.testing.assert_allclose(lego, [[1111.111, 0, 399.5], [0, 1111.111, 399.5], [0, 0, 1]], rtol=1e-6)
    right_angle = nerf_cameras.intrinsics({"camera_angle_x": math.pi / 2}, 60, 100)  # tan 45 degrees = 1
    np.testing.assert_allclose(right_angle, [[50, 0, 49.5], [0, 50, 29.5], [0, 0, 1]], rtol=1e-6)
    both = nerf_cameras.intrinsics({"camera_angle_x": math.pi / 2, "camera_angle_y": math.pi / 2}, 60, 100)
    np.testing.assert_allclose(both[1, 1], 30, rtol=1e-6)


def test_the_angle_of_views3d_gives_its_intrinsics():
    found = nerf_cameras.intrinsics({"camera_angle_x": ANGLE}, 64, 64)
    np.testing.assert_allclose(found, views3d_cameras.intrinsics(), rtol=1e-6)


def test_pixels_come_before_angles_and_centres_count_from_the_corner():
    lens = {"camera_angle_x": 1, "fl_x": 90, "fl_y": 80.5, "cx": 51, "cy": 29, "w": 100, "h": 60.0, "k1": 0}
    found = nerf_cameras.intrinsics(lens, 60, 100)
    np.testing.assert_array_equal(found, np.array([[90, 0, 50.5], [0, 80.5, 28.5], [0, 0, 1]], np.float32))
    assert nerf_cameras.intrinsics({"fl_x": 90}, 60, 100)[1, 1] == 90


def test_a_cut_and_scaled_image_keeps_its_rays():
    """Corners of the middle square of 100 x 60 pixels, 20 pixels from the left, are corners of 15 x 15 pixels."""
    matrix = np.array([[90, 0, 50.5], [0, 80, 28.5], [0, 0, 1]], np.float32)
    small = nerf_cameras.squared(matrix, 60, 100, 15)
    for (x, y), (u, v) in (((20, 0), (0, 0)), ((80, 60), (15, 15)), ((50, 12), (7.5, 3))):  # from the corner
        ray = np.linalg.solve(matrix, [x - 0.5, y - 0.5, 1])
        np.testing.assert_allclose(small @ ray, [u - 0.5, v - 0.5, 1], atol=1e-5)
    np.testing.assert_array_equal(nerf_cameras.squared(matrix, 60, 60, 60), matrix)


@pytest.mark.parametrize(
    ("lens", "expected"),
    [
        ({}, "camera_angle_x is missing: add it (radians), or fl_x"),
        ({"camera_angle_y": 1.0}, "camera_angle_x is missing"),
        ({"camera_angle_x": 39.6}, "camera_angle_x is 39.6: expected an angle between 0 and pi, in radians"),
        ({"camera_angle_x": 0}, "camera_angle_x is 0"),
        ({"camera_angle_x": "1"}, "camera_angle_x is '1': expected a number"),
        ({"camera_angle_x": True}, "expected a number"),
        ({"camera_angle_x": float("nan")}, "expected a number"),
        ({"fl_x": -1}, "fl_x is -1: expected a positive number of pixels"),
        ({"fl_x": 9, "w": 200}, "w is 200 and the image has 100 pixels"),
        ({"fl_x": 9, "h": 100}, "h is 100 and the image has 60 pixels"),
        ({"fl_x": 9, "k1": 0.1, "k2": 0, "p2": -0.2}, "k1 = 0.1, p2 = -0.2: lens distortion is not modelled"),
        ({"fl_x": 9, "camera_model": "OPENCV_FISHEYE"}, "camera_model 'OPENCV_FISHEYE'"),
        ({"fl_x": 9, "is_fisheye": True}, "is_fisheye True"),
    ],
)
def test_a_lens_that_is_none_is_named(lens, expected):
    assert expected in refused(nerf_cameras.intrinsics, lens, 60, 100)


def scaled(matrix):
    return np.diag([2, 2, 2, 1]) @ matrix


def mirrored(matrix):
    return matrix @ np.diag([-1, 1, 1, 1])


def sheared(matrix):
    return matrix + 0.1 * np.eye(4, k=1) * [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m[:3], "shape [3, 4], expected [4, 4]"),
        (lambda m: m.T, "no camera"),
        (lambda m: m * np.nan, "no camera"),
        (scaled, "no rigid camera"),
        (mirrored, "no rigid camera"),
        (sheared, "no rigid camera"),
    ],
)
def test_a_matrix_that_is_no_rigid_camera_is_named(change, expected):
    matrix = random_camera(1)
    assert nerf_cameras.camera_to_world(matrix.tolist()).shape == (4, 4)
    assert expected in refused(nerf_cameras.camera_to_world, change(matrix).tolist())


@pytest.mark.parametrize("content", [None, "x", [[1, 2], [3]], [["a"] * 4] * 4, {"a": 1}])
def test_what_is_no_matrix_is_named(content):
    assert "transform_matrix" in refused(nerf_cameras.camera_to_world, content)
