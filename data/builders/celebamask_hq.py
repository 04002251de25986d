"""CelebAMask-HQ (arXiv:1907.11922): faces and the parts that people outlined in them, from its folder.

    DIR/CelebA-HQ-img/<n>.jpg                                       n from 0 on
    DIR/CelebAMask-HQ-mask-anno/<n // 2000>/<n, 5 digits>_<part>.png    white where the part is; one that is not in
                                                                    sight has no file
    DIR/CelebA-HQ-to-CelebA-mapping.txt                             idx orig_idx orig_file

Parts are painted in the order of PARTS, later ones over earlier ones; class 0 is what none covers. Splits are CelebA's
own, by orig_idx, its number there, from 0 on.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import tensorflow_datasets as tfds

from data.builders import folders, images
from data.builders.recipe import Recipe, Split
from data.dense_info import DenseInfo
from data.errors import DataError

VERSION = "1.0.0"  # raise it whenever the same folder gives other records
PARTS = (
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
)
PARTS += ("hair", "hat", "ear_r", "neck_l", "neck", "cloth")
INFO = DenseInfo(classes=("background", *PARTS), sided=True)
IMAGES, MASKS, MAPPING = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"
ENDS = {"train": 162_770, "val": 182_637, "test": 202_599}  # orig_idx of a split's images lies below
_FOLDER = 2000  # images whose masks share a folder
_MASK = re.compile(r"(\d{5})_(\w+)\.png")


@dataclasses.dataclass(frozen=True)
class Face:
    """One image and the files of its parts, in the order of PARTS."""

    number: int
    image: pathlib.Path
    parts: dict[str, pathlib.Path]


def recipe(source: str | pathlib.Path, name: str = "celebamask_hq", image_size: int = 256) -> Recipe:
    """Lists images and masks; decodes nothing yet.

    Args:
        source: the folder.
        name: of the data set.
        image_size: pixels a side that images and masks are scaled to.

    Raises:
        DataError: a folder or file is missing, images and the mapping do not agree, a split or an image without
            masks, a part that is unknown.
    """
    root = folders.listable_root(source)
    mapping = folders.read_text(root / MAPPING, "the list that says which image of CelebA each one is")
    numbers = read_mapping(mapping, root / MAPPING)
    faces = list_faces(root, numbers)
    _check_images(root, {face.image.name for found in faces.values() for face in found})
    paths = [
        path for found in faces.values() for face in found for path in (face.image, *face.parts.values())
    ]
    return Recipe(
        name=name,
        version=VERSION,
        description=f"The faces under {root}, and masks of {len(INFO.classes)} classes.",
        features=_features(image_size),
        splits={split: _split(f"{name} {split}", found, image_size) for split, found in faces.items()},
        source=str(root),
        fingerprint=folders.fingerprint(root, paths, mapping, str(image_size)),
        image_shape=(image_size, image_size, 3),
        dense=INFO,
    )


# What the folder holds ---------------------------------------------------------------------------------


def read_mapping(text: str, path: pathlib.Path) -> dict[str, list[int]]:
    """Split -> numbers of its images. Raises DataError, naming the line, and where a split has no image."""
    found: dict[str, list[int]] = {split: [] for split in ENDS}
    for place, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] == "idx":
            continue
        if len(fields) != 3 or not (fields[0] + fields[1]).isdecimal() or int(fields[1]) >= ENDS["test"]:
            raise DataError(
                f"{path}, line {place}: expected idx, orig_idx (below {ENDS['test']}) and orig_file: fetch it again"
            )
        found[next(split for split, end in ENDS.items() if int(fields[1]) < end)].append(int(fields[0]))
    numbers = [number for members in found.values() for number in members]
    if len(set(numbers)) < len(numbers):
        raise DataError(f"{path} lists an image twice: fetch it again")
    for split in (split for split, members in found.items() if not members):
        raise DataError(f"{path} has no image of CelebA's split {split}: fetch it again")
    return found


def list_faces(root: pathlib.Path, numbers: Mapping[str, Sequence[int]]) -> dict[str, list[Face]]:
    """Of the numbers of each split. Raises DataError for an image that has no file, or no masks."""
    masks: dict[int, dict[str, pathlib.Path]] = {}
    for folder in sorted({number // _FOLDER for members in numbers.values() for number in members}):
        masks |= _masks_in(root / MASKS / str(folder))
    return {split: [_face(root, number, masks) for number in members] for split, members in numbers.items()}


def _face(root: pathlib.Path, number: int, masks: Mapping[int, Mapping[str, pathlib.Path]]) -> Face:
    image, found = root / IMAGES / f"{number}.jpg", masks.get(number)
    if not image.is_file():
        raise DataError(f"there is no {image}, which {MAPPING} lists: fetch it")
    if not found:
        missing = root / MASKS / str(number // _FOLDER) / f"{number:05d}_skin.png"
        raise DataError(f"image {number} has no masks: expected {missing} and others, fetch them")
    return Face(number, image, {part: found[part] for part in PARTS if part in found})


def _check_images(root: pathlib.Path, listed: set[str]) -> None:
    others = sorted({path.name for path in folders.direct_images(root / IMAGES)} - listed)
    if others:
        raise DataError(
            f"{root / IMAGES / others[0]} is not among the {len(listed):,} images of {MAPPING}: fetch that again, or "
            "move the image away"
        )


def _masks_in(folder: pathlib.Path) -> dict[int, dict[str, pathlib.Path]]:
    """Number of an image -> part -> its file. Raises DataError for a part that is unknown."""
    found: dict[int, dict[str, pathlib.Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _MASK.fullmatch(path.name)
        if match and match[2] not in PARTS:
            raise DataError(f"{path}: {match[2]!r} is no part; expected one of {', '.join(PARTS)}")
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = path
    return found


# What is made of it ------------------------------------------------------------------------------------


def example(face: Face, size: int) -> dict:
    """One record. Raises DataError for a file that cannot be decoded, or sides that do not fit."""
    image = images.read_pixels(face.image, 3)
    _check_square(face.image, image)
    if size > len(image):
        raise DataError(
            f"--image_size={size}: {face.image} has only {len(image)} pixels a side; ask for less"
        )
    mask = cv2.resize(merged(face), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return {
        "image": images.encode_jpeg(images.scaled(image, size)),
        "masks": np.array([images.encode_png(mask)], object),
        "name": str(face.number),
    }


def merged(face: Face) -> np.ndarray:
    """Class numbers, uint8 [h, w]. Raises DataError for masks that differ in size, or are not square."""
    mask: np.ndarray | None = None
    for part, path in face.parts.items():
        shown = images.read_pixels(path, 1)
        mask = np.zeros_like(shown) if mask is None else mask
        if shown.shape != mask.shape:
            raise DataError(f"{path} has another size than the image's other masks: fetch it again")
        mask[shown > 127] = INFO.classes.index(part)
    _check_square(path, mask)
    return mask


def _check_square(path: pathlib.Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if height != width:
        raise DataError(
            f"{path} has {height} x {width} pixels, and those of CelebAMask-HQ are square: fetch it again"
        )


def _split(label: str, faces: list[Face], size: int) -> Split:
    return Split(size=len(faces), examples=functools.partial(_generate, label, faces, size))


def _generate(label: str, faces: list[Face], size: int) -> Iterator:
    for made in folders.made(functools.partial(example, size=size), faces, label, "images"):
        yield made["name"], made


def _features(size: int) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
            "masks": tfds.features.Tensor(shape=(1,), dtype=np.object_),  # PNG bytes, of the one image
            "name": tfds.features.Text(),
        }
    )
