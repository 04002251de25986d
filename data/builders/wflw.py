"""WFLW (arXiv:1805.10483): faces, 98 points of each, and what makes them hard, from its folder.

    DIR/WFLW_images/<folder>/<file>.jpg
    DIR/WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt

A line of a list is a face, and an example: x y of 98 points, the box x_min y_min x_max y_max, six attributes, and the
image. Of it a square around the middle of the box is kept, PADDING times as long as the box's longer side, in whole
pixels and continued at the image's border by its pixels. With its first pixel at c and s pixels a side, a point p comes
to lie at

    p' = (p - c + 1/2) size / s - 1/2                                                                     (1)

where pixel (0, 0) is a centre before and after.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data.builders import folders, images, wflw_points
from data.builders.recipe import Recipe, Split, point_features
from data.dense import within
from data.dense_info import SEEN
from data.errors import DataError

VERSION = "1.0.0"  # raise it whenever the same folder gives other records
PADDING = 1.25
ATTRIBUTES = {  # names of 0 and 1, in the order of the lists
    "pose": ("normal", "large"),
    "expression": ("normal", "exaggerated"),
    "illumination": ("normal", "extreme"),
    "make_up": ("no", "yes"),
    "occlusion": ("no", "yes"),
    "blur": ("no", "yes"),
}
IMAGES, LISTS = "WFLW_images", "WFLW_annotations/list_98pt_rect_attr_train_test"
SPLITS = ("train", "test")
POINTS = len(wflw_points.INFO.points)
_NUMBERS = 2 * POINTS + 4  # before the attributes
_FIELDS = _NUMBERS + len(ATTRIBUTES) + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """One line of a list."""

    image: pathlib.Path
    points: np.ndarray  # [98, 2] (x, y) in pixels of the image
    box: np.ndarray  # [4]
    attributes: tuple[int, ...]
    where: str  # file and line, for messages


def recipe(source: str | pathlib.Path, name: str = "wflw", image_size: int = 256) -> Recipe:
    """Reads both lists; decodes nothing yet.

    Args:
        source: the folder.
        name: of the data set.
        image_size: pixels a side that faces are scaled to.

    Raises:
        DataError: a folder, list or image is missing, a list is empty, or whatever is wrong with a line.
    """
    root = folders.listable_root(source)
    lists = {split: root / LISTS / f"list_98pt_rect_attr_{split}.txt" for split in SPLITS}
    texts = {split: folders.read_text(path, "the list of WFLW's faces") for split, path in lists.items()}
    faces = {split: read_list(root, lists[split], text) for split, text in texts.items()}
    _check_images(faces)
    paths = sorted({face.image for found in faces.values() for face in found})
    return Recipe(
        name=name,
        version=VERSION,
        description=f"The faces under {root}, {POINTS} points of each.",
        features=_features(image_size),
        splits={split: _split(f"{name} {split}", split, found, image_size) for split, found in faces.items()},
        source=str(root),
        fingerprint=folders.fingerprint(root, paths, *texts.values(), str(image_size)),
        image_shape=(image_size, image_size, 3),
        dense=wflw_points.INFO,
    )


# What the lists say ------------------------------------------------------------------------------------


def read_list(root: pathlib.Path, path: pathlib.Path, text: str) -> list[Face]:
    """Raises DataError, naming the line, for one that is none, and for a list without any."""
    lines = enumerate(text.splitlines(), 1)
    found = [_face(root, f"{path}, line {number}", line.split()) for number, line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} is empty: fetch it again")
    return found


def _face(root: pathlib.Path, where: str, fields: list[str]) -> Face:
    if len(fields) != _FIELDS:
        raise DataError(
            f"{where}: expected {_FIELDS} fields ({2 * POINTS} coordinates, 4 of the box, {len(ATTRIBUTES)} "
            f"attributes, the image), found {len(fields)}: fetch the list again"
        )
    numbers, attributes = _numbers(where, fields[:_NUMBERS]), fields[_NUMBERS:-1]
    if not set(attributes) <= {"0", "1"}:
        raise DataError(
            f"{where}: expected attributes of 0 or 1, found {' '.join(attributes)}: fetch the list again"
        )
    points, box = numbers[: 2 * POINTS].reshape(POINTS, 2), numbers[2 * POINTS :]
    if np.any(box[2:] <= box[:2]):
        raise DataError(
            f"{where}: expected x_min y_min x_max y_max of a box, found {' '.join(fields[2 * POINTS : _NUMBERS])}"
        )
    if _distance(points) == 0:
        raise DataError(
            f"{where}: the outer corners of the eyes (points 60 and 72) are one point: correct it"
        )
    return Face(root / IMAGES / fields[-1], points, box, tuple(map(int, attributes)), where)


def _numbers(where: str, fields: list[str]) -> np.ndarray:
    try:
        numbers = np.array(fields, np.float64)
    except ValueError as error:
        raise DataError(f"{where}: {error}: fetch the list again") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: expected finite numbers: fetch the list again")
    return numbers


def _distance(points: np.ndarray) -> float:
    outer, other = wflw_points.OUTER_CORNERS
    return float(np.hypot(*(points[outer] - points[other])))


def _check_images(faces: dict[str, list[Face]]) -> None:
    known: set[pathlib.Path] = set()
    for face in (face for found in faces.values() for face in found):
        if face.image not in known and not face.image.is_file():
            raise DataError(f"{face.where}: there is no image {face.image}: fetch it")
        known.add(face.image)


# What is made of a face --------------------------------------------------------------------------------


def example(face: Face, size: int) -> dict:
    """One record. Raises DataError for an image that cannot be decoded, or a box that lies elsewhere."""
    image = images.read_pixels(face.image, 3)
    left, top, side = square(face, *image.shape[:2])
    points = moved(face.points, left, top, side, size)
    return {
        "image": images.encode_jpeg(images.scaled(cut(image, left, top, side), size)),
        "keypoints": points[None].astype(np.float32),
        "keypoints_seen": within(points, np.full(POINTS, SEEN, np.int32), size)[None],
        "keypoint_scale": np.array([_distance(points)], np.float32),
        **dict(zip(ATTRIBUTES, face.attributes, strict=True)),
    }


def square(face: Face, height: int, width: int) -> tuple[int, int, int]:
    """Left, top and side, in whole pixels. DataError for a box that does not fit the image."""
    middle, longer = (face.box[:2] + face.box[2:]) / 2, (face.box[2:] - face.box[:2]).max()
    if not (0 <= middle[0] < width and 0 <= middle[1] < height) or longer > 2 * max(height, width):
        raise DataError(
            f"{face.where}: its box {' '.join(f'{x:g}' for x in face.box)} does not fit {face.image} "
            f"({height} x {width} pixels): fetch both again"
        )
    side = max(1, round(PADDING * longer))
    left, top = np.rint(middle - (side - 1) / 2).astype(int)
    return int(left), int(top), side


def cut(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """The square; beyond the border its pixels go on."""
    rows, columns = (
        np.clip(np.arange(start, start + side), 0, length - 1)
        for start, length in zip((top, left), image.shape[:2], strict=True)
    )
    return np.ascontiguousarray(image[rows[:, None], columns])


def moved(points: np.ndarray, left: int, top: int, side: int, size: int) -> np.ndarray:
    """(1)"""
    return (points - [left, top] + 0.5) * size / side - 0.5


def _split(label: str, split: str, faces: list[Face], size: int) -> Split:
    return Split(size=len(faces), examples=functools.partial(_generate, label, split, faces, size))


def _generate(label: str, split: str, faces: list[Face], size: int) -> Iterator:
    make = functools.partial(example, size=size)
    for row, made in enumerate(folders.made(make, faces, label, "faces")):
        yield f"{split}/{row:05d}", made


def _features(size: int) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
            **point_features(1, POINTS),
            **{name: tfds.features.ClassLabel(names=list(names)) for name, names in ATTRIBUTES.items()},
        }
    )
