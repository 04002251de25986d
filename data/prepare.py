"""Prepares a data set:

    python -m data.prepare views3d|fashion_mnist [--source=DIR] [--data_dir=DIR]
    python -m data.prepare folder|grouped_folder|posed_folder --source=DIR [--name=NAME] [--data_dir=DIR] ...
    python -m data.prepare celebamask_hq|wflw --source=DIR [--name=NAME] [--image_size=256] [--data_dir=DIR]

Exit status 0 when the data set is there at the end, also when it was there already. Errors are one line.
"""

import argparse
import pathlib
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from data import locations
from data.errors import DataError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = ("views3d", "fashion_mnist")
_FLAGS = {  # data set -> the flags that it takes beside --data_dir
    "views3d": (),
    "fashion_mnist": ("source",),
    "folder": ("source", "name"),
    "grouped_folder": ("source", "name", "test_share"),
    "posed_folder": ("source", "name", "test_share", "image_size", "background"),
    "celebamask_hq": ("source", "name", "image_size"),
    "wflw": ("source", "name", "image_size"),
}
_NEED_SOURCE = {  # what it is a folder of
    "folder": "images",
    "grouped_folder": "groups of images",
    "posed_folder": "objects with transforms files",
    "celebamask_hq": "CelebA-HQ-img, CelebAMask-HQ-mask-anno and the mapping to CelebA",
    "wflw": "WFLW_images and WFLW_annotations",
}
_FACES_SIZE = 256


def main(argv: Sequence[str]) -> int:
    """Runs one preparation; returns the exit status."""
    flags = vars(_parser().parse_args(argv))
    try:
        run(flags.pop("data_set"), flags.pop("data_dir"), flags)
    except DataError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was kept", 130)
    return 0


def run(data_set: str, data_dir: str | None, flags: Mapping[str, Any]) -> pathlib.Path:
    """Prepares `data_set` unless it is prepared, says which, and returns its folder.

    Args:
        data_set: which.
        data_dir: where data sets go; None: the default.
        flags: name -> value of all others, None where it was not given.

    Raises:
        DataError: see the builders and `builders.store`.
    """
    _check_flags(data_set, flags)
    from data.builders import store  # TFDS takes a second to import: not for --help or a mistyped flag

    started = time.monotonic()
    place = locations.resolve(data_dir).absolute()
    recipe = _recipe(data_set, flags)
    if store.is_prepared(recipe, place):
        print(f"already prepared: {store.folder_of(recipe, place)}")
        return store.folder_of(recipe, place)
    folder = store.write(recipe, place)
    print(f"prepared {recipe.name} ({_contents(recipe)}) in {time.monotonic() - started:.0f} s: {folder}")
    return folder


def _contents(recipe) -> str:
    sizes = [f"{split.size:,} {name}" for name, split in recipe.splits.items()]
    features = {name: getattr(feature, "num_classes", None) for name, feature in recipe.features.items()}
    return ", ".join(sizes + [f"{name} of {classes}" for name, classes in features.items() if classes])


def _recipe(data_set: str, flags: Mapping[str, Any]):
    source, name = flags["source"], flags["name"] or data_set
    if data_set == "views3d":
        from data.builders import views3d

        return views3d.recipe()
    if data_set == "fashion_mnist":
        from data.builders import fashion_mnist

        return fashion_mnist.recipe(source)
    if data_set == "grouped_folder":
        from data.builders import grouped_folder

        return grouped_folder.recipe(source, name, flags["test_share"])
    if data_set == "posed_folder":
        return _posed(source, name, flags)
    if data_set == "celebamask_hq":
        from data.builders import celebamask_hq

        return celebamask_hq.recipe(source, name, flags["image_size"] or _FACES_SIZE)
    if data_set == "wflw":
        from data.builders import wflw

        return wflw.recipe(source, name, flags["image_size"] or _FACES_SIZE)
    from data.builders import image_folder

    return image_folder.recipe(source, name)


def _posed(source: str, name: str, flags: Mapping[str, Any]):
    from data.builders import posed_folder

    options = posed_folder.Options(
        test_share=flags["test_share"],
        image_size=flags["image_size"],
        background=flags["background"] or "white",
    )
    return posed_folder.recipe(source, name, options)


def _check_flags(data_set: str, flags: Mapping[str, Any]) -> None:
    for flag, value in flags.items():
        if value is not None and flag not in _FLAGS[data_set]:
            raise DataError(_not_for(data_set, flag, value))
    if data_set in _NEED_SOURCE and not flags["source"]:
        raise DataError(f"{data_set} needs --source=DIR, a folder of {_NEED_SOURCE[data_set]}")
    check_name(flags["name"])
    share, size = flags["test_share"], flags["image_size"]
    if share is not None and not 0 <= share < 1:
        raise DataError(
            f"--test_share={share:g}: expected a share of the objects or groups, 0 or more and below 1"
        )
    if size is not None and size < 1:
        raise DataError(f"--image_size={size}: expected a positive number of pixels")


def _not_for(data_set: str, flag: str, value: Any) -> str:
    takers = " and ".join(f"`{name}`" for name, taken in _FLAGS.items() if flag in taken)
    if flag == "name":
        return f"--name={value} is for {takers} only; {data_set} keeps its own name"
    if flag == "source":
        return f"--source is not for {data_set}, which is rendered; leave it out"
    return f"--{flag}={value} is for {takers} only; leave it out"


def check_name(name: str | None) -> None:
    """Raises DataError for a --name that no data set may have."""
    if name is not None and (name in _RESERVED or not _NAME.fullmatch(name)):
        raise DataError(
            f"--name={name}: expected lower-case letters, digits and _, and not {' or '.join(_RESERVED)}"
        )


def _fail(text: str, status: int) -> int:
    print(f"data.prepare: {text}", file=sys.stderr)
    return status


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the command line in one line."""

    def error(self, message):
        raise SystemExit(_fail(f"{message}; see --help", 2))


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="python -m data.prepare", description=__doc__, allow_abbrev=False)
    parser.add_argument("data_set", choices=tuple(_FLAGS))
    parser.add_argument("--source", metavar="DIR", help="where the images or IDX files lie")
    parser.add_argument(
        "--name", help="name of a folder's data set (default: its kind), then config.data.name"
    )
    parser.add_argument(
        "--test_share",
        type=float,
        metavar="SHARE",
        help="of the objects, groups, or one object's cameras that are test (default: 0.1, or as the folder says)",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        metavar="PIXELS",
        help="scale the middle square of posed images, or faces (256), to this side",
    )
    parser.add_argument(
        "--background", choices=("white", "black"), help="behind transparent pixels of posed images (white)"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help=f"where data sets go (default: {locations.default_dir()})"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up as after Ctrl-C
    sys.exit(main(sys.argv[1:]))
