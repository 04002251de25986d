"""Rectangles of pixels in an image: a part of it, its middle, the largest square there."""

from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def middle(height: int, width: int, h: int, w: int) -> Box:
    """`h` x `w` pixels in the middle of an image."""
    return Box((height - h) // 2, (width - w) // 2, h, w)


def square(height: int, width: int) -> Box:
    """The largest square in the middle of an image."""
    side = min(height, width)
    return middle(height, width, side, side)


def zoomed_box(height: int, width: int, zoom: float) -> Box:
    """The middle of an image, its sides 1 / zoom of the whole, to the nearest pixel, and one at least."""
    return middle(height, width, max(round(height / zoom), 1), max(round(width / zoom), 1))


def part_of(image: np.ndarray, box: Box) -> np.ndarray:
    """What lies in the box, as a view of the image."""
    return image[box.top : box.top + box.height, box.left : box.left + box.width]
