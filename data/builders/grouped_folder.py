"""Images in groups: views of one thing each, whose cameras nobody knows.

    DIR/train/<group>/x.jpg  DIR/test/<group>/x.jpg      (val/ and test/ are optional)
    DIR/<group>/x.jpg                                    test holds the groups of DIR/test.txt, or a share of them

An example is a group: its images, encoded. Group folders may have folders inside.
"""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data.builders import folders, holdout, images
from data.builders.recipe import Recipe, Split
from data.errors import DataError

VERSION = "1.0.0"  # raise it whenever the same folder gives other records
Groups = dict[str, list[pathlib.Path]]


def recipe(source: str | pathlib.Path, name: str, test_share: float | None = None) -> Recipe:
    """Lists the folder and looks at every header; decodes nothing yet.

    Args:
        source: the folder.
        name: of the data set.
        test_share: of the groups that are test; None: 0.1, or what the folder says.

    Raises:
        DataError: no such folder, no groups, a group with fewer than 2 images or in two splits, a file that is no
            image, and what `holdout.folders_by_split` refuses.
    """
    root = folders.listable_root(source)
    listing = list_groups(root, test_share)
    paths = [path for groups in listing.values() for members in groups.values() for path in members]
    shape = folders.common_shape(folders.read_headers(paths))
    return Recipe(
        name=name,
        version=VERSION,
        description=f"The groups of images under {root}.",
        features=_features(),
        splits={split: _split(name, split, groups, shape[2]) for split, groups in listing.items()},
        source=str(root),
        fingerprint=folders.fingerprint(
            root, paths, *(f"{split}/{group}" for split in listing for group in listing[split])
        ),
        image_shape=shape,
        views=min(len(members) for groups in listing.values() for members in groups.values()),
    )


def list_groups(root: pathlib.Path, share: float | None) -> dict[str, Groups]:
    """Split -> group -> its images, in the order of their names."""
    by_split = holdout.folders_by_split(root, "group", share)
    return {split: {path.name: _members(path) for path in paths} for split, paths in by_split.items()}


def _members(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        found = folders.images_below(folder)
    except OSError as error:
        raise folders.cannot_list(error) from error
    if len(found) < 2:
        raise DataError(
            f"group folder {folder} has {len(found) or 'no'} image{'s' * (not found)}: a group needs 2 or more, for "
            "source and target; add some, or remove the folder"
        )
    return found


def _split(name: str, split: str, groups: Groups, channels: int) -> Split:
    make = functools.partial(_generate, f"{name} {split}", split, groups, channels)
    return Split(size=len(groups), examples=make)


def _generate(label: str, split: str, groups: Groups, channels: int) -> Iterator:
    encode = functools.partial(images.read_encoded, channels=channels)
    for group, encoded in folders.encoded_groups(groups, encode, label):
        yield f"{split}/{group}", {"images": np.array(encoded, object), "name": group}


def _features() -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {"images": tfds.features.Tensor(shape=(None,), dtype=np.object_), "name": tfds.features.Text()}
    )
