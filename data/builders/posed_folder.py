"""Objects seen from known cameras: a folder with a transforms file, or one such folder for each object.

    DIR/<object>/transforms_train.json  (_val, _test)        all views of an object; splits are of objects
    DIR/{train,val,test}/<object>/transforms.json            likewise, the folders say the split
    DIR/transforms_train.json  (_val, _test)                 one object; splits are of its cameras

An example is an object: its images, encoded, all of one size, and the camera of each. `holdout` says how objects are
dealt to splits where the folders do not, `transforms` and `nerf_cameras` what is read and how it is turned.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data.augment import centre_crop
from data.builders import folders, holdout, images, nerf_cameras, transforms
from data.builders.recipe import Recipe, Split
from data.builders.transforms import View
from data.errors import DataError
from data.views import decode

VERSION = "1.0.0"  # raise it whenever the same folder gives other records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a folder is read.

    Attributes:
        test_share: of the objects (of the cameras, where there is one object) that are test; None: 0.1, or what
            the folder says.
        image_size: the middle square of each image is scaled to this many pixels a side; None: as they are.
        background: "white" or "black", what shines through transparent pixels.
    """

    test_share: float | None = None
    image_size: int | None = None
    background: images.Background = "white"


@dataclasses.dataclass(frozen=True, eq=False)
class Object:
    """One example: views of one size, and K [3, 3] of the images as they are stored."""

    name: str
    views: list[View]
    intrinsics: np.ndarray
    side: int  # pixels of the stored images


def recipe(source: str | pathlib.Path, name: str, options: Options | None = None) -> Recipe:
    """Reads all transforms files and looks at every image's header; decodes nothing yet.

    Raises:
        DataError: whatever is wrong with the folder, a file, a camera, or the sizes of images.
    """
    options = options or Options()
    root = folders.listable_root(source)
    listing = list_views(root, options.test_share)
    headers = _headers(listing)
    objects = {
        split: [_object(name, views, headers, options.image_size) for name, views in found.items()]
        for split, found in listing.items()
    }
    side, channels = _common_side(objects), folders.common_shape(headers.values())[2]
    return Recipe(
        name=name,
        version=VERSION,
        description=f"The objects under {root}, and their cameras.",
        features=_features(),
        splits={split: _split(name, split, found, channels, options) for split, found in objects.items()},
        source=str(root),
        fingerprint=_fingerprint(root, objects, options),
        image_shape=(side, side, channels),
        views=min(len(item.views) for found in objects.values() for item in found),
    )


def list_views(root: pathlib.Path, share: float | None) -> dict[str, dict[str, list[View]]]:
    """Split -> object -> its views, in the order of its files."""
    if transforms.is_object(root):
        return _one_object(root, share)
    by_split = holdout.folders_by_split(root, "object", share)
    members = [path for paths in by_split.values() for path in paths]
    if len(members) == 1:
        return _one_object(members[0], share)
    return {
        split: {path.name: list(itertools.chain(*transforms.read_object(path).values())) for path in paths}
        for split, paths in by_split.items()
    }


def _one_object(folder: pathlib.Path, share: float | None) -> dict[str, dict[str, list[View]]]:
    found = transforms.read_object(folder)
    if "" in found:
        views = found[""]
        names = [os.path.relpath(view.image, folder).replace(os.sep, "/") for view in views]
        found = holdout.parted(views, names, holdout.hold_out(names, share, least=2))
    else:
        holdout.refuse_share(share, f"{folder / transforms.PARTS['train']} and its neighbours")
    return {split: {folder.name: views} for split, views in found.items()}


def _headers(listing: dict[str, dict[str, list[View]]]) -> dict[pathlib.Path, images.Header]:
    paths = [view.image for found in listing.values() for views in found.values() for view in views]
    return dict(zip(paths, folders.read_headers(paths), strict=True))


def _object(name: str, views: list[View], headers: dict, image_size: int | None) -> Object:
    if len(views) < 2:
        raise DataError(f"{views[0].where}: object {name!r} has one view; expected 2 or more in each split")
    matrices = [_intrinsics(view, views[0], headers) for view in views]
    for view, matrix in zip(views, matrices, strict=True):
        if not np.allclose(matrix, matrices[0], rtol=1e-4, atol=1e-2):
            raise DataError(
                f"{view.where}: its lens is not that of {views[0].where}; an object has one lens for all views"
            )
    height, width = headers[views[0].image].height, headers[views[0].image].width
    side = image_size or _square(views[0], height, width)
    if side > min(height, width):
        raise DataError(
            f"--image_size={side}: {views[0].image} has only {height} x {width} pixels; ask for less"
        )
    return Object(name, views, nerf_cameras.squared(matrices[0], height, width, side), side)


def _intrinsics(view: View, first: View, headers: dict) -> np.ndarray:
    size, expected = ((headers[v.image].height, headers[v.image].width) for v in (view, first))
    if size != expected:
        raise DataError(
            f"{view.image} has {size[0]} x {size[1]} pixels, {first.image} {expected[0]} x {expected[1]}: all images "
            "of an object must have one size"
        )
    with transforms.named(view.where):
        return nerf_cameras.intrinsics(view.lens, *size)


def _square(view: View, height: int, width: int) -> int:
    if height != width:
        raise DataError(
            f"{view.image} is not square ({height} x {width} pixels): give --image_size=N, which scales the middle "
            "square of each image"
        )
    return height


def _common_side(objects: dict[str, list[Object]]) -> int:
    found = {item.side: item for items in objects.values() for item in items}
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise DataError(
            f"objects differ in size ({first.name!r} {one} pixels, {second.name!r} {other}): give --image_size=N, to "
            "which all are scaled"
        )
    return next(iter(found))


def _split(name: str, split: str, objects: list[Object], channels: int, options: Options) -> Split:
    make = functools.partial(_generate, f"{name} {split}", split, objects, channels, options)
    return Split(size=len(objects), examples=make)


def _generate(label: str, split: str, objects: list[Object], channels: int, options: Options) -> Iterator:
    encode = functools.partial(
        encoded_view, channels=channels, size=options.image_size, background=options.background
    )
    paths = {item.name: [view.image for view in item.views] for item in objects}
    made = folders.encoded_groups(paths, encode, label)
    for item, (name, encoded) in zip(objects, made, strict=True):
        yield (
            f"{split}/{name}",
            {
                "images": np.array(encoded, object),
                "camera_to_world": np.stack([view.camera_to_world for view in item.views]),
                "intrinsics": item.intrinsics,
                "name": name,
            },
        )


def encoded_view(path: pathlib.Path, channels: int, size: int | None, background: images.Background) -> bytes:
    """The image as it is stored. Raises DataError where it cannot be decoded to the end."""
    encoded = images.read_encoded(path, channels, background)
    return encoded if size is None else images.encode_png(centre_crop(decode(encoded, channels), size))


def _features() -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            # Plain bytes, not Image: a reader wants two of the views, and TFDS would decode them all.
            "images": tfds.features.Tensor(shape=(None,), dtype=np.object_),
            "camera_to_world": tfds.features.Tensor(shape=(None, 4, 4), dtype=np.float32),
            "intrinsics": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
            "name": tfds.features.Text(),
        }
    )


def _fingerprint(root: pathlib.Path, objects: dict[str, list[Object]], options: Options) -> str:
    """Of the images' names and sizes, the cameras and lenses that the files say, the splits and the options."""
    items = [(split, item) for split, found in objects.items() for item in found]
    cameras = b"".join(
        array.tobytes()
        for _, item in items
        for array in (item.intrinsics, *(view.camera_to_world for view in item.views))
    )
    said = [f"{split}/{item.name}/{len(item.views)}" for split, item in items]
    paths = [view.image for _, item in items for view in item.views]
    return folders.fingerprint(
        root, paths, repr((options.image_size, options.background)), cameras.hex(), *said
    )
