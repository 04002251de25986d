"""Distance functions of views3d's solids: safe to step by, inside their spheres, resting on the floor."""

import itertools

import numpy as np
import pytest

from data.builders.views3d_solids import EDGE, SOLIDS, smax

each_solid = pytest.mark.parametrize("solid", SOLIDS.values(), ids=SOLIDS)


def grid(step: float = 0.08):
    """Points around the solids, as three float32 arrays."""
    line = np.arange(-1.5, 1.5, step, dtype=np.float32)
    return np.meshgrid(line, line, np.arange(-0.3, 2.0, step, dtype=np.float32), indexing="ij")


def inside(solid):
    """The grid's points inside the solid, [3, n]."""
    points = np.stack(grid()).reshape(3, -1)
    return points[:, solid.distance(*points) < 0]


@each_solid
def test_no_two_points_are_closer_than_their_distances_differ(solid):
    random = np.random.default_rng(0)
    a = random.uniform(-2, 2, (3, 20_000)).astype(np.float32)
    b = a + random.normal(0, 0.2, a.shape).astype(np.float32)
    change = np.abs(solid.distance(*a) - solid.distance(*b))
    assert np.all(change <= np.linalg.norm(a - b, axis=0) + 1e-5)


@each_solid
def test_distance_is_not_far_below_the_truth(solid):
    """Else tracing would crawl: the nearest point inside is at most twice as far as promised."""
    surface = inside(solid)
    random = np.random.default_rng(1)
    points = random.uniform(-1.6, 1.6, (3, 40)).astype(np.float32)
    promised = solid.distance(*points)
    true = np.sqrt(((points[:, :, None] - surface[:, None]) ** 2).sum(0)).min(1)
    far = promised > 0.3
    assert far.sum() > 10
    assert np.all(true[far] < 2 * promised[far] + 0.15)


@each_solid
def test_lies_in_its_sphere_and_is_more_than_half_as_wide(solid):
    points = inside(solid)
    reach = np.linalg.norm(points - np.array([[0], [0], [solid.middle]]), axis=0).max()
    assert 0.85 * solid.radius < reach <= solid.radius


@each_solid
def test_rests_on_the_floor(solid):
    lowest = inside(solid)[2].min()
    assert -0.01 <= lowest <= 0.09


def test_solids_are_alike_in_size():
    volumes = {name: inside(solid).shape[1] for name, solid in SOLIDS.items()}
    assert max(volumes.values()) < 3.5 * min(volumes.values()), volumes


def test_no_two_solids_have_the_same_shape():
    points = grid(0.1)
    fillings = {name: solid.distance(*points) < 0 for name, solid in SOLIDS.items()}
    for (_, a), (_, b) in itertools.combinations(fillings.items(), 2):
        assert (a ^ b).sum() > 0.1 * (a | b).sum()


def test_yaw_below_90_degrees_is_unique_for_the_solids_with_corners():
    points = np.stack(grid(0.1)).reshape(3, -1)
    for name in ("cube", "octahedron", "prism", "pill", "torus"):
        upright = SOLIDS[name].distance(*points) < 0
        for degrees in (22.5, 45, 67.5):
            c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
            turned = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32) @ points
            assert ((SOLIDS[name].distance(*turned) < 0) ^ upright).any(), (name, degrees)


def test_only_the_ring_is_not_convex():
    for name, solid in SOLIDS.items():
        points = inside(solid)
        pairs = np.random.default_rng(2).integers(0, points.shape[1], (2, 4000))
        middles = (points[:, pairs[0]] + points[:, pairs[1]]) / 2
        assert np.all(solid.distance(*middles) < 0.01) == solid.convex == (name != "torus")


def test_smooth_maximum_lies_above_by_at_most_half_an_edge():
    a, b = np.random.default_rng(3).uniform(-1, 1, (2, 1000)).astype(np.float32)
    above = smax(a, b) - np.maximum(a, b)
    assert above.min() >= -1e-6
    assert above.max() <= EDGE / 2 + 1e-6
    np.testing.assert_allclose(smax(a, a), a + EDGE / 2, rtol=1e-5, atol=1e-6)
