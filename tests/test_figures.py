"""Grids of images: every pixel where it belongs, as a square, under its title."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from soda_jax.report import figures
from soda_jax.report.figures import GAP, describe, grid, save_grid, save_strip


def images(count=2, size=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def cell(picture, row, column, *, side=128, top=0, left=0):
    """The pixels of one cell, RGB, of a grid without titles."""
    pixels = np.asarray(picture)
    y, x = top + row * (side + GAP), left + column * (side + GAP)
    return pixels[y : y + side, x : x + side, :3]


def test_each_pixel_becomes_a_square_of_equal_pixels_in_its_own_cell():
    a, b = images(seed=1), images(seed=2)
    picture = grid([("", a), ("", b)])
    for column, stack in enumerate((a, b)):
        for row in range(2):
            expected = np.kron(stack[row], np.ones((8, 8, 1), np.uint8))
            np.testing.assert_array_equal(cell(picture, row, column), expected)


def test_grey_images_become_equal_channels():
    grey = images(count=1, channels=1)
    shown = cell(grid([("", grey)]), 0, 0)
    np.testing.assert_array_equal(shown[::8, ::8], np.repeat(grey[0], 3, axis=-1))


@pytest.mark.parametrize(("size", "times"), [(16, 8), (28, 5), (64, 2), (128, 1), (224, 1)])
def test_the_enlargement_is_the_whole_number_that_comes_nearest(size, times):
    width, height = grid([("", images(count=1, size=size))]).size
    assert (width, height) == (size * times + GAP, size * times + GAP)


def test_a_smaller_image_stands_in_the_middle_of_its_cell():
    large, small = images(count=1, size=224), images(count=1, size=112)
    shown = cell(grid([("", large), ("", small)]), 0, 1, side=224)
    np.testing.assert_array_equal(shown[56:168, 56:168], small[0])
    assert not shown[:56].any()


def test_the_ground_is_transparent_and_the_images_are_not():
    alpha = np.asarray(grid([("a", images(count=1)), ("b", images(count=1))]))[..., 3]
    assert set(np.unique(alpha[-130:, :128])) == {0, 255}
    assert (alpha[-1] == 0).all() and (alpha[-60, :128] == 255).all()


def test_titles_and_row_titles_take_room_and_leave_the_images_as_they_are():
    plain, titled = grid([("", images())]), grid([("source", images())], row_titles=["first", "second"])
    assert titled.width > plain.width and titled.height > plain.height
    left, top = titled.width - plain.width, titled.height - plain.height
    np.testing.assert_array_equal(np.asarray(titled)[top:, left:], np.asarray(plain))
    assert np.asarray(titled)[:top].any() and np.asarray(titled)[:, :left].any()


def test_neighbours_of_one_title_share_it():
    assert figures._spans(["source", "new", "new", "source"]) == [
        (0, 0, "source"),
        (1, 2, "new"),
        (3, 3, "source"),
    ]


def test_a_strip_is_one_row_with_a_title_each(tmp_path):
    path = save_strip(tmp_path / "strip.png", images(count=3), ["A", "0.50", "B"])
    with Image.open(path) as picture:
        assert picture.width == 3 * (128 + GAP) and picture.height < 2 * 128


def test_a_file_carries_its_description_and_may_be_written_over(tmp_path):
    path = tmp_path / "deep" / "grid.png"
    for words in ("step 1", "step 2, noise µ"):
        save_grid(path, {"source": images()}, description=words)
    assert describe(path) == "step 2, noise µ"
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_a_picture_of_other_origin_has_no_description(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert describe(tmp_path / "a.png") == ""


def test_arrays_of_jax_and_lists_are_taken_too():
    stack = images()
    expected = np.asarray(grid([("", stack)]))
    for same in (jnp.asarray(stack), list(stack)):
        np.testing.assert_array_equal(np.asarray(grid([("", same)])), expected)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "expected images in every column"),
        ({"a": images(count=0)}, "expected images in every column"),
        ({"a": images(count=1), "b": images(count=2)}, r"columns of one length.*'a': 1, 'b': 2"),
        ({"a": images().astype(np.float32)}, "expected uint8.*float32"),
        ({"a": images(channels=4)}, r"1 or 3\], got uint8 \[16, 16, 4\]"),
    ],
)
def test_what_is_no_grid_is_refused_in_words(columns, message):
    with pytest.raises(ValueError, match=message):
        grid(columns)


def test_row_titles_must_be_as_many_as_rows():
    with pytest.raises(ValueError, match="3 row titles"):
        grid({"a": images()}, row_titles=["1", "2", "3"])


def test_a_strip_needs_a_title_an_image(tmp_path):
    with pytest.raises(ValueError, match="got 1 for 2"):
        save_strip(tmp_path / "a.png", images(), ["one"])
