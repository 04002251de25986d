"""Any folder of images.

    DIR/train/<class>/x.jpg  DIR/test/<class>/x.jpg     labelled (test is optional)
    DIR/<class>/x.jpg                                   labelled, train only
    DIR/train/x.jpg  DIR/test/x.jpg                     unlabelled (test is optional)
    DIR/x.jpg                                           unlabelled, train only

Class folders may have folders inside. Hidden files, and files without an image's extension, are passed over.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from data.builders import folders, images, workers
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
    paths = [entry.path for entries in listing.values() for entry in entries]
    shape = folders.common_shape(folders.read_headers(paths))
    return Recipe(
        name=name,
        version="1.0.0",
        description=f"The images under {root}.",
        features=_features(shape, classes),
        splits={split: _split(root, name, split, entries, shape[2]) for split, entries in listing.items()},
        source=str(root),
        fingerprint=folders.fingerprint(root, paths),
        image_shape=shape,
    )


def list_images(root: pathlib.Path) -> dict[str, list[Entry]]:
    """Split -> its images in a fixed order."""
    root = folders.listable_root(root)
    try:
        places = folders.split_folders(root, "class", SPLITS) or {"train": root}
        return {split: _list_split(place) for split, place in places.items()}
    except OSError as error:
        raise folders.cannot_list(error) from error


def _list_split(folder: pathlib.Path) -> list[Entry]:
    direct, classes = folders.direct_images(folder), folders.subfolders(folder)
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
    found = folders.images_below(folder)
    if not found:
        raise DataError(f"class folder {folder} has no images: add some, or remove the folder")
    return [Entry(path, folder.name) for path in found]


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
    encoded = workers.ordered_map(read, paths, processes=folders.processes_for(len(entries)))
    watched = report(encoded, total=len(entries), label=f"{name} {split}", unit="images")
    for entry, image in zip(entries, watched, strict=True):
        label = {} if entry.label is None else {"label": entry.label}
        yield entry.path.relative_to(root).as_posix(), {"image": image, **label}
