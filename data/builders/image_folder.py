"""Any folder of images.

    DIR/train/<class>/x.jpg  DIR/test/<class>/x.jpg     labelled (test is optional)
    DIR/<class>/x.jpg                                   labelled, train only
    DIR/train/x.jpg  DIR/test/x.jpg                     unlabelled (test is optional)
    DIR/x.jpg                                           unlabelled, train only

Class folders may have folders inside. Hidden files, and files without an image's extension, are passed over.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from data.builders import images, workers
from data.builders.progress import report
from data.builders.recipe import Recipe, Split
from data.errors import DataError

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image file and its class (None in unlabelled data)."""

    path: pathlib.Path
    label: str | None


def recipe(source: str | pathlib.Path, name: str) -> Recipe:
    """Lists the folder and looks at every header; decodes nothing yet.

    Raises:
        DataError: no such folder, no images, an empty class folder, test without train, a class of test
            that is unknown in train, a file that is no image.
    """
    root = pathlib.Path(source).expanduser().resolve()
    listing = list_images(root)
    classes = _classes(root, listing)
    shape = _common_shape(listing)
    return Recipe(
        name=name,
        version="1.0.0",
        description=f"The images under {root}.",
        features=_features(shape, classes),
        splits={split: _split(root, name, split, entries, shape[2]) for split, entries in listing.items()},
        source=str(root),
        fingerprint=_fingerprint(root, listing),
        image_shape=shape,
    )


def list_images(root: pathlib.Path) -> dict[str, list[Entry]]:
    """Split -> its images in a fixed order."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give --source=DIR, a folder of images")
    try:
        return _list_splits(root)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be listed ({error.strerror}): make it readable") from error


def _list_splits(root: pathlib.Path) -> dict[str, list[Entry]]:
    folders = {path.name for path in _subfolders(root)}
    misspelt = sorted(name for name in folders if name.lower() in SPLITS and name not in SPLITS)
    if misspelt:
        raise DataError(
            f"{root / misspelt[0]}: write it {misspelt[0].lower()}/, or give the class another name"
        )
    if "test" in folders and "train" not in folders:
        raise DataError(f"{root} has test/ without train/: add train/, or rename test/ to train/")
    if "train" not in folders:
        return {"train": _list_split(root)}
    others = sorted(folders - set(SPLITS))
    if others:
        raise DataError(
            f"{root} has {others[0]}/ beside train/: only train/ and test/ are read; rename or move it"
        )
    return {split: _list_split(root / split) for split in SPLITS if split in folders}


def _list_split(folder: pathlib.Path) -> list[Entry]:
    direct = sorted(path for path in folder.iterdir() if path.is_file() and _is_image(path, folder))
    classes = _subfolders(folder)
    if direct and classes:
        raise DataError(
            f"{folder} has both images ({direct[0].name}) and folders ({classes[0].name}/): "
            f"put all images in class folders, or none"
        )
    entries = [Entry(path, None) for path in direct] + [e for c in classes for e in _list_class(c)]
    if not entries:
        raise DataError(
            f"no images in {folder}: expected files such as x.jpg or x.png, or class folders of them"
        )
    return entries


def _list_class(folder: pathlib.Path) -> list[Entry]:
    walked = (
        pathlib.Path(place) / file for place, _, files in os.walk(folder, onerror=_fail) for file in files
    )
    found = sorted(path for path in walked if _is_image(path, folder))
    if not found:
        raise DataError(f"class folder {folder} has no images: add some, or remove the folder")
    return [Entry(path, folder.name) for path in found]


def _fail(error: OSError) -> None:
    raise error


def _is_image(path: pathlib.Path, folder: pathlib.Path) -> bool:
    if not _is_text(str(path)):
        raise DataError(f"{str(path)!r}: its name is not UTF-8, which a data set's keys must be; rename it")
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in images.EXTENSIONS


def _is_text(name: str) -> bool:
    return name.encode(errors="replace").decode() == name


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(root: pathlib.Path, listing: dict[str, list[Entry]]) -> list[str] | None:
    """The class names of train, sorted; None for unlabelled data."""
    found = {split: {entry.label for entry in entries} for split, entries in listing.items()}
    train, test = found["train"], found.get("test", found["train"])
    if (None in train) != (None in test):
        raise DataError(
            f"{root}: one of train/ and test/ has class folders, the other has none; make them alike"
        )
    if None in train:
        return None
    unknown = sorted(test - train)
    if unknown:
        raise DataError(
            f"{root / 'test' / unknown[0]}: class unknown in train/; remove it or add it to train/"
        )
    return sorted(train)


def _common_shape(listing: dict[str, list[Entry]]) -> tuple[int | None, int | None, int]:
    """(h, w, c): h and w only where all images agree; grey only where all are grey."""
    everything = [entry for entries in listing.values() for entry in entries]
    looked = workers.ordered_map(
        images.read_header, (e.path for e in everything), processes=_processes(everything)
    )
    headers = set(report(looked, total=len(everything), label="reading headers", unit="images"))
    sizes = {(header.height, header.width) for header in headers}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    return height, width, 1 if all(header.grey for header in headers) else 3


def _features(shape, classes: list[str] | None) -> tfds.features.FeaturesDict:
    features = {"image": tfds.features.Image(shape=shape)}
    if classes is not None:
        features["label"] = tfds.features.ClassLabel(names=classes)
    return tfds.features.FeaturesDict(features)


def _split(root: pathlib.Path, name: str, split: str, entries: list[Entry], channels: int) -> Split:
    return Split(
        size=len(entries), examples=functools.partial(_generate, root, name, split, entries, channels)
    )


def _generate(root, name, split, entries: list[Entry], channels: int) -> Iterator:
    read = functools.partial(images.read_encoded, channels=channels)
    paths = (entry.path for entry in entries)
    encoded = workers.ordered_map(read, paths, processes=_processes(entries))
    watched = report(encoded, total=len(entries), label=f"{name} {split}", unit="images")
    for entry, image in zip(entries, watched, strict=True):
        label = {} if entry.label is None else {"label": entry.label}
        yield entry.path.relative_to(root).as_posix(), {"image": image, **label}


def _processes(entries: list[Entry]) -> int:
    """Starting a worker takes a second: a small folder is read without."""
    return workers.core_count() if len(entries) > 2000 else 1


def _fingerprint(root: pathlib.Path, listing: dict[str, list[Entry]]) -> str:
    """From names and sizes: contents would mean reading everything twice."""
    digest = hashlib.sha256()
    for entry in (entry for entries in listing.values() for entry in entries):
        digest.update(f"{entry.path.relative_to(root).as_posix()}\0{entry.path.stat().st_size}\n".encode())
    return digest.hexdigest()
