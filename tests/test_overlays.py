"""Classes and points over images: which pixels get which colour."""

import numpy as np

from soda_jax.report.overlays import SIDE, dotted, hues, painted


def test_hues_are_told_apart():
    colours = hues(19).astype(int)
    gaps = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(19, dtype=int)
    assert colours.shape == (19, 3) and gaps.min() >= 20


def test_pixels_are_a_quarter_themselves_and_the_rest_their_class():
    image = np.full((1, 1, 4, 1), 100, np.uint8)
    found = painted(image, np.array([[[0, 1, 2, 255]]], np.uint8), 3)[0, 0]
    colours = hues(2).astype(int)
    expected = [[25] * 3, (100 + 3 * colours[0]) // 4, (100 + 3 * colours[1]) // 4, [100] * 3]
    np.testing.assert_array_equal(found, expected)


def test_points_lie_where_their_pixels_do_once_enlarged():
    images = np.zeros((1, 16, 16, 1), np.uint8)
    points = np.array([[[0.0, 0.0], [10.0, 4.0], [3.0, 12.0]]], np.float32)
    found = dotted(images, points, np.array([[False, True, True]]))[0].astype(int)
    times = SIDE // 16
    assert found.shape == (SIDE, SIDE, 3)
    assert not found[:times, :times].any(), "one that is not shown"
    for (x, y), colour in zip(points[0, 1:], hues(3)[1:], strict=True):
        rows, columns = np.nonzero(np.abs(found - colour.astype(int)).sum(-1) == 0)
        middle = [(columns.mean() + 0.5) / times - 0.5, (rows.mean() + 0.5) / times - 0.5]
        np.testing.assert_allclose(middle, [x, y], atol=0.1)
