"""Writes a recipe so that a data set is there whole or not at all.

Everything is written in a hidden sibling folder, read back, flushed to the disk, and moved to its place in
one rename. A killed preparation leaves only its hidden folder, which the next one removes.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

import tensorflow_datasets as tfds

from data.builders.recipe import Recipe, RecipeBuilder
from data.errors import DataError

_PREFIX = ".preparing-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def folder_of(recipe: Recipe, data_dir: pathlib.Path) -> pathlib.Path:
    """Where the recipe's data set lies once prepared."""
    return data_dir / recipe.name / recipe.version


def is_prepared(recipe: Recipe, data_dir: pathlib.Path) -> bool:
    """Whether exactly this recipe's data set is there and readable.

    Raises:
        DataError: another data set has the name, or the one there is damaged.
    """
    target = folder_of(recipe, data_dir)
    if not target.exists():
        return False
    stored = _stored_metadata(target)
    if stored.get("fingerprint") != recipe.fingerprint:
        raise DataError(_taken(recipe, target, stored))
    verify(target, {name: split.size for name, split in recipe.splits.items()})
    return True


def write(recipe: Recipe, data_dir: pathlib.Path) -> pathlib.Path:
    """Writes the recipe's data set and returns its folder.

    Raises:
        DataError: the disk is full, data_dir cannot be written, or an input is bad.
    """
    with _full_disk_in_plain_words(data_dir), _workplace(recipe.name, data_dir) as workplace:
        built = _build(recipe, workplace)
        verify(built, {name: split.size for name, split in recipe.splits.items()})
        _flush(built)
        return _move(built, folder_of(recipe, data_dir))


def verify(folder: pathlib.Path, sizes: dict[str, int]) -> None:
    """Reads the first and last record of each split.

    Raises:
        DataError: a file is missing or cut, or a split does not have the given number of examples.
    """
    try:
        builder = tfds.builder_from_directory(folder)
        found = {name: _readable_length(builder, name) for name in sizes}
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise DataError(_damaged(folder, _first_line(error))) from error
    if found != sizes:
        raise DataError(_damaged(folder, f"expected {sizes} examples, found {found}"))


def _readable_length(builder, split: str) -> int:
    records = builder.as_data_source(split).data_source  # the stored bytes, nothing decoded
    _ = records[0], records[len(records) - 1]
    return len(records)


def _damaged(folder: pathlib.Path, why: str) -> str:
    return f"{folder} is damaged ({why}): delete this folder and prepare the data set again"


def _stored_metadata(folder: pathlib.Path) -> dict:
    try:
        return json.loads((folder / "metadata.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(_damaged(folder, _first_line(error))) from error


def _taken(recipe: Recipe, target: pathlib.Path, stored: dict) -> str:
    source = stored.get("source") or "other input"
    if source == recipe.source:
        return f"{source} has changed since {target} was prepared from it: delete {target} and prepare again"
    return (
        f"the name {recipe.name!r} is taken: {target} was prepared from {source}, not from {recipe.source}; "
        f"choose another --name or --data_dir, or delete that folder"
    )


def _build(recipe: Recipe, workplace: pathlib.Path) -> pathlib.Path:
    tfds.disable_progress_bar()  # the recipes show their own
    builder = RecipeBuilder(recipe, str(workplace))
    with contextlib.redirect_stdout(
        sys.stderr if os.environ.get("SODA_JAX_VERBOSE") else open(os.devnull, "w")
    ):
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def _workplace(name: str, data_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A locked hidden folder, removed at the end whatever happens short of a kill."""
    data_dir.mkdir(parents=True, exist_ok=True)
    _sweep(data_dir)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-", dir=data_dir))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the folder's lock, which the system drops when the process dies. Raises OSError if held."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _sweep(data_dir: pathlib.Path) -> None:
    """Removes what killed preparations left; a folder whose lock is held belongs to a living one."""
    for folder in data_dir.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(folder):
            shutil.rmtree(folder)


def _flush(folder: pathlib.Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move(built: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(built, target)
    except OSError as error:
        if not target.exists():
            raise
        raise DataError(f"{target} was prepared by another process meanwhile; nothing was changed") from error
    return target


@contextlib.contextmanager
def _full_disk_in_plain_words(data_dir: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno not in _FULL:
            raise DataError(
                f"cannot write under {data_dir} ({_first_line(error)}): choose another --data_dir"
            ) from error
        if isinstance(error, RuntimeError) and not any(os.strerror(code) in str(error) for code in _FULL):
            raise
        raise DataError(
            f"no space left under {data_dir}: free some, or choose another --data_dir; nothing was kept"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
