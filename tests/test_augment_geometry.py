"""Crops, flips and RandAugment's geometry, checked on images whose every pixel tells where it was."""

import math

import numpy as np
import pytest

from data import augment
from data.boxes import Box

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def ramp(height: int, width: int) -> np.ndarray:
    """Channel 0 is x, channel 1 is y, channel 2 is 200 everywhere (0 only where nothing was)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 200)], -1).astype(np.uint8)


def boxes(count: int, height=40, width=60, scale=SCALE, ratio=RATIO):
    rng = np.random.default_rng(0)
    return [augment.random_box(rng, height, width, scale, ratio) for _ in range(count)]


def test_boxes_lie_inside():
    for box in boxes(500):
        assert 0 <= box.top <= box.top + box.height <= 40 and box.height > 0
        assert 0 <= box.left <= box.left + box.width <= 60 and box.width > 0


def test_boxes_have_areas_and_shapes_as_asked():
    made = boxes(4000, 400, 400, (0.2, 0.6))
    areas = np.array([b.height * b.width for b in made]) / 400**2
    aspects = np.log([b.width / b.height for b in made])
    assert 0.199 < areas.min() < 0.21 and 0.59 < areas.max() < 0.602
    assert abs(areas.mean() - 0.4) < 0.01  # uniform in the area
    assert abs(aspects.mean()) < 0.01  # uniform in the logarithm: wide as often as tall
    assert math.log(3 / 4) - 0.02 < aspects.min() and aspects.max() < math.log(4 / 3) + 0.02


def test_boxes_are_everywhere():
    corners = np.array(
        [(b.top / (40 - b.height), b.left / (60 - b.width)) for b in boxes(2000, scale=(0.1, 0.2))]
    )
    assert np.abs(corners.mean(0) - 0.5).max() < 0.03 and corners.min() == 0 and corners.max() == 1


def test_where_no_box_fits_the_largest_in_the_middle_is_taken():
    assert boxes(1, 10, 100, (1.0, 1.0)) == [(0, 43, 10, 13)]  # ratio 4 / 3
    assert boxes(1, 100, 10, (1.0, 1.0)) == [(43, 0, 13, 10)]
    assert boxes(1, 20, 20, (1.0, 1.0), (1.0, 1.0)) == [(0, 0, 20, 20)]


@pytest.mark.parametrize("size", [8, 16, 33])
def test_a_crop_holds_its_box(size):
    box = Box(10, 20, 16, 16)
    crop = augment.resized_crop(ramp(40, 60), box, size)
    assert crop.shape == (size, size, 3)
    assert np.ptp(crop[:, :, 0], axis=0).max() <= 1 and np.ptp(crop[:, :, 1], axis=1).max() <= 1
    centre = (np.arange(size) + 0.5) * 16 / size - 0.5
    np.testing.assert_allclose(crop[0, :, 0], np.clip(20 + centre, 20, 35), atol=0.75)
    np.testing.assert_allclose(crop[:, 0, 1], np.clip(10 + centre, 10, 25), atol=0.75)


def test_shrinking_averages():
    """A chequerboard becomes grey, not black or white as by taking single pixels."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(augment.centre_crop(board, 8).astype(int) - 128).max() <= 1


def test_each_axis_is_averaged_by_itself():
    stripes = np.broadcast_to((np.arange(96) % 2 * 255).astype(np.uint8), (32, 96))
    assert np.abs(augment.resized_crop(stripes, Box(0, 0, 32, 96), 32).astype(int) - 128).max() <= 43
    assert np.ptp(augment.resized_crop(stripes, Box(0, 0, 32, 64), 32)) <= 1


def test_the_centre_crop_is_the_middle_square():
    image = ramp(20, 32)
    np.testing.assert_array_equal(augment.centre_crop(image, 20), image[:, 6:26])
    np.testing.assert_array_equal(
        augment.centre_crop(image.transpose(1, 0, 2), 20), image.transpose(1, 0, 2)[6:26]
    )
    assert augment.centre_crop(image[:, :20], 20).base is image  # nothing to do, nothing copied


def test_flip_is_a_mirror():
    np.testing.assert_array_equal(augment.flip(ramp(5, 7)), ramp(5, 7)[:, ::-1])


def test_translations_move_by_whole_pixels():
    """150/331 of the width is the longest way; what comes in is black."""
    image, full = ramp(100, 80), 150 / 331
    right = augment.translate_x(image, full)
    np.testing.assert_array_equal(right[:, 36:], image[:, :-36])  # int(80 x 150 / 331)
    assert not right[:, :36].any()
    np.testing.assert_array_equal(augment.translate_x(image, -full)[:, :-36], image[:, 36:])
    np.testing.assert_array_equal(augment.translate_y(image, full)[45:], image[:-45])  # int(100 x 150 / 331)
    np.testing.assert_array_equal(augment.translate_y(image, -full)[:-45], image[45:])
    np.testing.assert_array_equal(augment.translate_y(augment.translate_x(image, 0.001), -0.001), image)


def test_shears_slide_rows_and_columns():
    image = ramp(50, 50)
    sheared = augment.shear_x(image, 0.3)
    for y in (0, 10, 40):  # multiples of 10 move by whole pixels
        shift = round(0.3 * y)
        np.testing.assert_array_equal(sheared[y, : 50 - shift], image[y, shift:])
        assert not sheared[y, 50 - shift :].any()
    mirrored = augment.shear_y(image.transpose(1, 0, 2)[:, :, [1, 0, 2]], 0.3).transpose(1, 0, 2)[
        :, :, [1, 0, 2]
    ]
    np.testing.assert_allclose(mirrored.astype(int), sheared, atol=1)
    np.testing.assert_array_equal(augment.shear_x(image, -0.3)[10, 3:], image[10, :-3])


@pytest.mark.parametrize("degrees", [30.0, -30.0, 9.0])
def test_rotations_turn_about_the_middle(degrees):
    turned = augment.rotate(ramp(61, 61), degrees)
    y, x = np.mgrid[:61, :61] - 30
    angle = math.radians(degrees)
    from_x, from_y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    inside = x**2 + y**2 < 29**2
    np.testing.assert_allclose(turned[..., 0][inside], 30 + from_x[inside], atol=0.6)
    np.testing.assert_allclose(turned[..., 1][inside], 30 + from_y[inside], atol=0.6)
    assert not turned[0, 0].any() or abs(degrees) < 10


def test_a_quarter_turn_is_exact():
    image = ramp(9, 9)
    np.testing.assert_array_equal(augment.rotate(image, 90.0), np.rot90(image))
