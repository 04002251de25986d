"""Heat maps there and back, and errors of points, by hand and by loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.intervals import bootstrap
from soda_jax.evaluation.landmarks import measure
from soda_jax.nn.heat_maps import decode, heat_maps, to_image, to_map

NAMES = ("centre", "top")


def drawn(count=20, side=16, margin=4.0, seed=0):
    """Points [count, 2, 2] in pixels of a map, away from its border."""
    rng = np.random.default_rng(seed)
    return rng.uniform(margin, side - 1 - margin, (count, 2, 2)).astype(np.float32)


def test_a_heat_map_is_the_gaussian_of_the_distance():
    points = drawn(3)
    maps = np.asarray(heat_maps(jnp.asarray(points), 16, 2.0))
    for i, k, row, column in [(0, 0, 3, 5), (1, 1, 10, 2), (2, 0, 7, 7)]:
        x, y = points[i, k]
        expected = np.exp(-((column - x) ** 2 + (row - y) ** 2) / 8)
        assert maps[i, row, column, k] == pytest.approx(expected, rel=1e-5)


def test_points_and_pixels_of_maps_share_their_corners():
    """The corner of the image, half a pixel before its first centre, is that of the map."""
    corners = jnp.array([[[-0.5, -0.5], [63.5, 63.5], [31.5, 31.5]]])
    np.testing.assert_allclose(to_map(corners, 16, 64), [[[-0.5, -0.5], [15.5, 15.5], [7.5, 7.5]]])
    points = jnp.asarray(drawn(2))
    np.testing.assert_allclose(to_image(to_map(points, 16, 64), 16, 64), points, atol=1e-5)


@pytest.mark.parametrize(("how", "most"), [("soft", 0.08), ("quarter", 0.26)])
def test_points_are_found_in_their_maps_to_a_fraction_of_a_pixel(how, most):
    points = drawn(200)
    found = np.asarray(decode(heat_maps(jnp.asarray(points), 16, 2.0), how))
    assert np.abs(found - points).max() < most
    peak = np.abs(np.rint(points) - points).max()
    assert np.abs(found - points).max() < peak, "better than the largest pixel alone"


def test_decoding_is_that_of_a_loop():
    """Of maps of noise, whose largest values lie anywhere, at borders too."""
    maps = np.random.default_rng(1).normal(size=(12, 7, 9, 2)).astype(np.float32)
    quarter, soft = (np.asarray(decode(jnp.asarray(maps), how, 2)) for how in ("quarter", "soft"))
    borders = 0
    for i in range(12):
        for k in range(2):
            one = maps[i, :, :, k]
            y, x = np.unravel_index(one.argmax(), one.shape)
            dx = 0.25 * np.sign(one[y, x + 1] - one[y, x - 1]) if 0 < x < 8 else 0
            dy = 0.25 * np.sign(one[y + 1, x] - one[y - 1, x]) if 0 < y < 6 else 0
            np.testing.assert_allclose(quarter[i, k], [x + dx, y + dy])
            borders += x in (0, 8) or y in (0, 6)
            rows, columns = slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3)
            weight = np.maximum(one[rows, columns], 0)
            v, u = np.mgrid[:7, :9][:, rows, columns]
            expected = [(weight * u).sum() / weight.sum(), (weight * v).sum() / weight.sum()]
            np.testing.assert_allclose(soft[i, k], expected, rtol=1e-4)
    assert borders > 3


def test_a_map_without_anything_gives_its_first_pixel():
    assert np.asarray(decode(-jnp.ones((1, 4, 4, 1)), "soft")).tolist() == [[[0, 0]]]


def test_errors_by_hand():
    """Two images: one point of each is off by 3 and 4 pixels; one is hidden, one not labelled."""
    truth = np.zeros((2, 2, 2), np.float32)
    found = truth + np.array([[[3, 4], [0, 0]], [[0, 1], [99, 99]]], np.float32)
    seen, scale = np.array([[2, 1], [2, 0]]), np.array([10.0, 20.0])
    result = measure(found, truth, seen, scale, np.arange(2), NAMES)
    assert result["nme"] == pytest.approx((0.25 + 0.05) / 2)
    assert result["nme_in_sight"] == pytest.approx((0.5 + 0.05) / 2)
    assert result["failure"] == 0.5 and result["auc"] == pytest.approx(0.5 / 2)
    assert result["points"] == {"centre": pytest.approx(0.275), "top": 0.0}


def test_means_intervals_and_the_area_are_those_of_loops():
    rng = np.random.default_rng(0)
    truth, groups = drawn(40), np.repeat(np.arange(10), 4)
    found = truth + rng.normal(size=truth.shape).astype(np.float32)
    seen, scale = rng.integers(0, 3, (40, 2)), rng.uniform(5, 20, 40)
    result = measure(found, truth, seen, scale, groups, NAMES)
    each, kept = [], []
    for i in range(40):
        apart = [np.hypot(*(found[i, k] - truth[i, k])) / scale[i] for k in range(2) if seen[i, k]]
        if apart:
            each.append(np.mean(apart))
            kept.append(i)
    assert 20 < len(each) < 40
    mean, interval = bootstrap(np.array(each), groups[kept])
    assert result["nme"] == pytest.approx(mean) and result["nme_ci95"] == pytest.approx(
        list(interval), rel=0.05
    )
    steps = np.linspace(0, 0.1, 20001)
    area = np.trapezoid([np.mean(np.array(each) <= e) for e in steps], steps) / 0.1
    assert result["auc"] == pytest.approx(area, abs=1e-3)
    assert result["failure"] == pytest.approx(np.mean(np.array(each) > 0.1))


def test_nothing_labelled_or_too_few_names_are_refused():
    zeros = np.zeros((1, 2, 2), np.float32)
    for seen, names in ((np.zeros((1, 2), int), NAMES), (np.ones((1, 2), int), NAMES[:1])):
        with pytest.raises(ValueError, match="expected labelled points"):
            measure(zeros, zeros, seen, np.ones(1), np.zeros(1, int), names)
