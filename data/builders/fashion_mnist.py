"""Fashion-MNIST (arXiv:1708.07747) from its four IDX files, plain or gzipped.

IDX: big-endian int32 magic (2049 labels, 2051 images), the sizes of the dimensions as int32, then bytes.
"""

import functools
import gzip
import hashlib
import pathlib
import zlib

import numpy as np
import tensorflow_datasets as tfds

from data.builders.images import encode_png
from data.builders.progress import report
from data.builders.recipe import Recipe, Split
from data.errors import DataError

DEFAULT_SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist
CLASSES = (
    "t-shirt_top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
_SIDE = 28
_FILE_STEMS = {"train": "train", "test": "t10k"}
_LABELS_MAGIC, _IMAGES_MAGIC = 2049, 2051


def recipe(source: str | pathlib.Path | None = None) -> Recipe:
    """Reads and checks all four files (30 MB), encodes nothing yet.

    Raises:
        DataError: a file is missing, cut, or of another format; labels and images do not match.
    """
    folder = pathlib.Path(source).expanduser() if source else DEFAULT_SOURCE
    arrays = {split: _read_split(folder, stem) for split, stem in _FILE_STEMS.items()}
    return Recipe(
        name="fashion_mnist",
        version="1.0.0",
        description="Fashion-MNIST: 28x28 grey images of clothes in 10 classes (Xiao, Rasul, Vollgraf 2017).",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(_SIDE, _SIDE, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
            }
        ),
        splits={
            name: Split(size=len(pair[0]), examples=_examples(name, *pair)) for name, pair in arrays.items()
        },
        source=str(folder),
        fingerprint=_fingerprint(arrays),
        image_shape=(_SIDE, _SIDE, 1),
    )


def _examples(split: str, images: np.ndarray, labels: np.ndarray):
    return functools.partial(_generate, split, images, labels)


def _generate(split, images, labels):
    pairs = report(
        zip(images, labels, strict=True), total=len(images), label=f"fashion_mnist {split}", unit="images"
    )
    for row, (image, label) in enumerate(pairs):
        yield f"{row:05d}", {"image": encode_png(image), "label": int(label)}


def _read_split(folder: pathlib.Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    images = _read_idx(folder, f"{stem}-images-idx3-ubyte", _IMAGES_MAGIC, (_SIDE, _SIDE))
    labels = _read_idx(folder, f"{stem}-labels-idx1-ubyte", _LABELS_MAGIC, ())
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(
            f"{folder}: {stem} has {len(images)} images and {len(labels)} labels; fetch the files again"
        )
    if labels.max() >= len(CLASSES):
        raise DataError(f"{folder}: {stem} has the label {labels.max()}, expected 0 to {len(CLASSES) - 1}")
    return images, labels


def _read_idx(folder: pathlib.Path, name: str, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """[n, *shape] uint8 from NAME or NAME.gz."""
    path = _find(folder, name)
    content = _read(path)
    offset = 4 * (2 + len(shape))
    header = np.frombuffer(content[:offset].ljust(offset, b"\0"), ">i4")
    if header[0] != magic or tuple(header[2:]) != shape:
        raise DataError(f"{path} is not the IDX file {name} of Fashion-MNIST: fetch it again")
    expected = offset + int(header[1]) * int(np.prod(shape))
    if len(content) != expected:
        raise DataError(f"{path} has {len(content)} bytes, expected {expected}: it is cut, fetch it again")
    return np.frombuffer(content, np.uint8, offset=offset).reshape(-1, *shape)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"no {name} or {name}.gz in {folder}: give --source=DIR with the four IDX files "
        f"(Debian: apt install dataset-fashion-mnist puts them in {DEFAULT_SOURCE})"
    )


def _read(path: pathlib.Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error


def _fingerprint(arrays) -> str:
    digest = hashlib.sha256()
    for images, labels in arrays.values():
        digest.update(images.tobytes() + labels.tobytes())
    return digest.hexdigest()
