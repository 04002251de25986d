"""Films: their frames, their size, their end, and what is written of them."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from soda_jax.report.animation import MILLISECONDS, save_film
from soda_jax.report.figures import GAP


def test_a_film_shows_every_frame_again_and_again(tmp_path):
    colours = np.array([[250, 0, 0], [0, 200, 0], [0, 0, 150]], np.uint8)
    frames = [
        [("", np.tile(colour, (2, 8, 8, 1))), ("", np.zeros((2, 4, 4, 3), np.uint8))] for colour in colours
    ]
    path = save_film(tmp_path / "new" / "film.gif", frames, side=16, description="step 4")
    with Image.open(path) as film:
        assert (film.n_frames, film.info["loop"], film.info["comment"]) == (3, 0, b"step 4")
        for frame, colour in zip(ImageSequence.Iterator(film), colours, strict=True):
            assert frame.info["duration"] == MILLISECONDS
            pixels = np.asarray(frame.convert("RGB"))
            assert pixels.shape == (2 * (16 + GAP), 2 * (16 + GAP), 3)
            np.testing.assert_allclose(pixels[8, 8], colour, atol=4)
            np.testing.assert_allclose(pixels[-1, -1], 255, atol=4)  # the gap is white
    assert [p.name for p in path.parent.iterdir()] == ["film.gif"]


def test_no_frame_and_no_picture_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected frames, got none"):
        save_film(tmp_path / "film.gif", [])
    with pytest.raises(ValueError, match="expected uint8"):
        save_film(tmp_path / "film.gif", [[("", np.zeros((1, 4, 4, 3)))]])
    assert not list(tmp_path.iterdir())
