"""Writes WFLW's folder, small: drawn faces of 98 points, symmetric, with dots at some of them."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.builders import wflw

DOTS = (0, 16, 32, 60, 72, 76, 82, 97)  # points that are painted


def around(centre, radii, degrees):
    """Points [n, 2] of an ellipse; 0 is to the right, 90 up in the image."""
    turn = np.deg2rad(degrees)
    return np.stack([centre[0] + radii[0] * np.cos(turn), centre[1] - radii[1] * np.sin(turn)], -1)


def line(start, end, count):
    return np.linspace(start, end, count)


def symmetric_face() -> np.ndarray:
    """[98, 2], x from -50 to 50 about a middle line at 0, y down: the paper's drawing of the layout, in numbers."""
    eye, outside, inside = 180 - 45 * np.arange(8), 180 - 30 * np.arange(12), 180 - 45 * np.arange(8)
    parts = [
        around((0, -10), (50, 70), 180 + 180 / 32 * np.arange(33)),  # contour: left, below, right
        line((-44, -40), (-12, -36), 5),  # left brow, above: outer end first
        line((-13, -33), (-40, -36), 4),  # below: inner end first
        line((12, -36), (44, -40), 5),  # right brow, above: inner end first
        line((40, -36), (13, -33), 4),  # below: outer end first
        line((0, -20), (0, 2), 4),  # bridge of the nose
        line((-9, 8), (9, 8), 5),
        around((-25, -20), (12, 6), eye),  # from the left corner over the upper lid
        around((25, -20), (12, 6), eye),
        around((0, 30), (20, 9), outside),  # from the left corner over the upper lip
        around((0, 30), (14, 3), inside),
        [(-25, -20), (25, -20)],  # pupils
    ]
    return np.concatenate(parts)


def placed(middle, zoom=1.0) -> np.ndarray:
    """A face there, its points that are painted moved to whole pixels."""
    points = symmetric_face() * zoom + middle
    points[list(DOTS)] = np.rint(points[list(DOTS)])
    return points


def box_of(points) -> np.ndarray:
    return np.concatenate([points.min(0), points.max(0)])


def painted(points, height, width, radius=2) -> np.ndarray:
    """A black image with a white disc at each of DOTS."""
    image = np.zeros((height, width), np.uint8)
    for x, y in points[list(DOTS)].astype(int):
        cv2.circle(image, (int(x), int(y)), radius, 255, -1)
    return image[..., None].repeat(3, -1)


def text_of(points, box, attributes, name) -> str:
    numbers = [f"{x:.6f}" for x in points.ravel()] + [f"{x:g}" for x in box]
    return " ".join([*numbers, *map(str, attributes), name])


def write_lists(root: Path, train, test) -> None:
    for split, lines in (("train", train), ("test", test)):
        path = root / wflw.LISTS / f"list_98pt_rect_attr_{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def write_image(root: Path, name: str, image: np.ndarray) -> Path:
    path = root / wflw.IMAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=100, subsampling=0)
    return path


def write_folder(root: Path) -> Path:
    """Two faces in one image of train, one of test."""
    first, second, third = placed((80, 90)), placed((240, 100), 0.8), placed((70, 80))
    both = np.maximum(painted(first, 200, 320), painted(second, 200, 320))
    write_image(root, "0--Two/two_1.jpg", both)
    write_image(root, "1--One/one_1.jpg", painted(third, 180, 150))
    write_lists(
        root,
        [
            text_of(first, np.rint(box_of(first)), (0, 1, 0, 0, 0, 1), "0--Two/two_1.jpg"),
            text_of(second, np.rint(box_of(second)), (1, 0, 0, 1, 0, 0), "0--Two/two_1.jpg"),
        ],
        [text_of(third, np.rint(box_of(third)), (0, 0, 1, 0, 1, 0), "1--One/one_1.jpg")],
    )
    return root
