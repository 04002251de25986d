"""The cameras of a scene: a rig whose centre, up and angles are known, walks around it, and the nearest view."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.builders import views3d_cameras as known
from soda_jax.evaluation.cameras import arc, nearest_view, rig_of

ANGLES = np.array([-50.0, -20.0, 10.0, 40.0, 55.0])
ELEVATION = np.array([12.0, 40.0, 25.0, 18.0, 48.0])
DISTANCE = np.array([4.8, 5.8, 5.0, 5.5, 5.1])


def placed(azimuth=ANGLES, elevation=ELEVATION, distance=DISTANCE):
    return known.place(azimuth, elevation, distance).camera_to_world.astype(np.float64)


def motion():
    """Some rigid motion of the world."""
    made = np.eye(4)
    made[:3, :3] = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    made[:3, 3] = [3, -2, 5]
    return made


def test_the_centre_and_up_of_a_known_rig_though_it_stands_on_one_side():
    """Cameras look down: the mean of their ups would lean by half of their elevation."""
    rig = rig_of(placed())
    np.testing.assert_allclose(rig.centre, known.TARGET, atol=1e-5)
    np.testing.assert_allclose(rig.up, [0, 0, 1], atol=1e-6)
    angles = np.rad2deg(rig.angles(placed(), placed()[2]))
    np.testing.assert_allclose(angles, ANGLES - 10, atol=1e-4)


def test_a_rig_moves_with_the_world():
    rig, moved, m = rig_of(placed()), rig_of(motion() @ placed()), motion()
    np.testing.assert_allclose(moved.centre, m[:3, :3] @ rig.centre + m[:3, 3], atol=1e-5)
    np.testing.assert_allclose(moved.up, m[:3, :3] @ rig.up, atol=1e-6)
    walks = [r.orbit(c, c[1], 6) for r, c in ((rig, placed()), (moved, m @ placed()))]
    np.testing.assert_allclose(m @ walks[0], walks[1], atol=1e-5)


def test_a_walk_keeps_elevation_and_distance_and_swings_over_the_arc_that_was_seen():
    """The cameras cover 105 degrees: the walk is that of the builder's own cameras, to and fro."""
    walk = rig_of(placed()).orbit(placed(), placed()[1], 24)
    swing = (-50 + 55) / 2 - (55 + 50) / 2 * np.cos(2 * np.pi * np.arange(24) / 24)
    expected = placed(swing, np.full(24, ELEVATION[1]), np.full(24, DISTANCE[1]))
    np.testing.assert_allclose(walk, expected, atol=1e-5)
    assert swing.min() == pytest.approx(-50) and swing.max() == pytest.approx(55)


def test_a_walk_goes_once_round_where_the_cameras_stand_all_around():
    azimuth = np.arange(0, 360, 72.0)
    cameras = placed(azimuth, ELEVATION, DISTANCE)
    walk = rig_of(cameras).orbit(cameras, cameras[0], 8)
    expected = placed(np.arange(8) * 45.0, np.full(8, ELEVATION[0]), np.full(8, DISTANCE[0]))
    np.testing.assert_allclose(walk, expected, atol=1e-5)
    np.testing.assert_allclose(walk[0], cameras[0], atol=1e-6)


def test_axes_that_miss_each_other_meet_where_their_distances_are_least():
    """Two axes that cross at right angles one unit apart: the centre is halfway."""
    first, second = np.eye(4), np.eye(4)
    first[:3, 3] = [0, 0, -5]  # along z through the origin
    second[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # z of the camera is x of the world
    second[:3, 3] = [-5, 1, 0]
    np.testing.assert_allclose(rig_of(np.stack([first, second])).centre, [0, 0.5, 0], atol=1e-9)


def test_parallel_cameras_and_a_single_one_have_a_centre_before_them_and_their_own_up():
    cameras = np.tile(np.eye(4), (3, 1, 1))
    cameras[:, 0, 3] = [0, 2, 4]
    rig = rig_of(cameras)
    np.testing.assert_allclose(rig.centre, [2, 0, 4], atol=1e-9)
    np.testing.assert_allclose(rig.up, [0, -1, 0], atol=1e-9)  # y points down
    alone = rig_of(cameras[:1])
    np.testing.assert_allclose(alone.centre, [0, 0, 1], atol=1e-9)
    walk = alone.orbit(cameras[:1], cameras[0], 4)
    np.testing.assert_allclose(walk, np.tile(cameras[0], (4, 1, 1)), atol=1e-9)


@pytest.mark.parametrize(
    ("degrees", "expected"), [([10, 50, -20], (-20, 50)), ([170, -170], (-190, -170)), ([5], (5, 5))]
)
def test_the_shortest_arc(degrees, expected):
    assert np.rad2deg(arc(np.deg2rad(degrees))) == pytest.approx(expected)


def test_the_nearest_view_looks_the_same_way_and_of_equals_the_nearer_one_is_taken():
    sources = placed(np.array([-40.0, 5.0, 30.0, 5.0]), np.full(4, 30.0), np.array([5.0, 12.0, 5.0, 11.0]))
    for azimuth, best in ((-60.0, 0), (5.0, 3), (25.0, 2)):
        (target,) = placed(np.array([azimuth]), np.array([30.0]), np.array([5.2]))
        assert nearest_view(sources, target) == best
