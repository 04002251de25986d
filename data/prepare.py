"""Prepares a data set:

    python -m data.prepare views3d|fashion_mnist|folder [--source=DIR] [--name=NAME] [--data_dir=DIR]

Exit status 0 when the data set is there at the end, also when it was there already. Errors are one line.
"""

import argparse
import pathlib
import re
import signal
import sys
import time
from collections.abc import Sequence

from data import locations
from data.errors import DataError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = ("views3d", "fashion_mnist")


def main(argv: Sequence[str]) -> int:
    """Runs one preparation; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        run(arguments.data_set, arguments.source, arguments.name, arguments.data_dir)
    except DataError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was kept", 130)
    return 0


def run(data_set: str, source: str | None, name: str | None, data_dir: str | None) -> pathlib.Path:
    """Prepares `data_set` unless it is prepared, says which, and returns its folder.

    Raises:
        DataError: see the builders and `builders.store`.
    """
    from data.builders import store  # TFDS takes a second to import: not for --help or a mistyped flag

    started = time.monotonic()
    place = locations.resolve(data_dir).absolute()
    recipe = _recipe(data_set, source, name)
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


def _recipe(data_set: str, source: str | None, name: str | None):
    _check_flags(data_set, source, name)
    if data_set == "views3d":
        from data.builders import views3d

        return views3d.recipe()
    if data_set == "fashion_mnist":
        from data.builders import fashion_mnist

        return fashion_mnist.recipe(source)
    from data.builders import image_folder

    return image_folder.recipe(source, name or "folder")


def _check_flags(data_set: str, source: str | None, name: str | None) -> None:
    if name and data_set != "folder":
        raise DataError(f"--name={name} is for `folder` only; {data_set} keeps its own name")
    if data_set == "views3d" and source:
        raise DataError("--source is not for views3d, which is rendered; leave it out")
    if data_set == "folder" and not source:
        raise DataError("folder needs --source=DIR, a folder of images")
    if name in _RESERVED or (name and not _NAME.fullmatch(name)):
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
    parser.add_argument("data_set", choices=("views3d", "fashion_mnist", "folder"))
    parser.add_argument("--source", metavar="DIR", help="where the images or IDX files lie")
    parser.add_argument("--name", help="name of a folder's data set (default: folder), then config.data.name")
    parser.add_argument(
        "--data_dir", metavar="DIR", help=f"where data sets go (default: {locations.default_dir()})"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up as after Ctrl-C
    sys.exit(main(sys.argv[1:]))
