"""Writes a recipe so that a data set is there whole or not at all.

Everything is written in a hidden sibling folder, read back, flushed to the disk, and moved to its place in
one rename. A killed preparation leaves only its hidden folder, which the next one removes.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import pathlib
import shutil
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
    _check_neighbours(recipe, data_dir)
    target = folder_of(recipe, data_dir)
    if not target.exists():
        return False
    stored = _stored(target, "metadata.json")
    if stored.get("fingerprint") != recipe.fingerprint:
        raise DataError(_taken(recipe, target, stored))
    verify(target, _sizes(recipe))
    return True


def write(recipe: Recipe, data_dir: pathlib.Path) -> pathlib.Path:
    """Writes the recipe's data set and returns its folder.

    Raises:
        DataError: the disk is full, data_dir cannot be written, or an input is bad.
    """
    with _disk_errors_in_plain_words(data_dir), _workplace(recipe.name, data_dir) as workplace:
        built = _build(recipe, workplace)
        verify(built, _sizes(recipe))
        _flush(built)
        return _move(built, recipe, data_dir)


def verify(folder: pathlib.Path, sizes: dict[str, int]) -> None:
    """Reads the first and last record of each split.

    Raises:
        DataError: a file is missing or cut, or a split does not have the given number of examples.
    """
    try:
        builder = tfds.builder_from_directory(folder)
        found = {name: _readable_length(builder, name) for name in sizes}
    except Exception as error:  # TFDS, protobuf and ArrayRecord each raise kinds of their own
        raise DataError(_damaged(folder, _first_line(error))) from error
    if found != sizes:
        raise DataError(_damaged(folder, f"expected {sizes} examples, found {found}"))


def _readable_length(builder, split: str) -> int:
    records = builder.as_data_source(split).data_source  # the stored bytes, nothing decoded
    _ = records[0], records[len(records) - 1]
    return len(records)


def _damaged(folder: pathlib.Path, why: str) -> str:
    return f"{folder} is damaged ({why}): delete this folder and prepare the data set again"


def _check_neighbours(recipe: Recipe, data_dir: pathlib.Path) -> None:
    """Other versions under the name must be ours: readers take the highest version, whoever wrote it."""
    for info in (data_dir / recipe.name).glob("*/dataset_info.json"):
        if _stored(info.parent, info.name).get("moduleName") != RecipeBuilder.__module__:
            raise DataError(
                f"the name {recipe.name!r} is taken: {info.parent} is a data set from elsewhere; "
                f"choose another --name or --data_dir"
            )


def _stored(folder: pathlib.Path, name: str) -> dict:
    try:
        return json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise DataError(_damaged(folder, _first_line(error))) from error


def _sizes(recipe: Recipe) -> dict[str, int]:
    return {name: split.size for name, split in recipe.splits.items()}


def _taken(recipe: Recipe, target: pathlib.Path, stored: dict) -> str:
    source = stored.get("source") or "other input"
    if source == recipe.source:
        return (
            f"{source} has changed since {target} was prepared from it, or a flag has: delete {target} and prepare "
            "again, or choose another --name or --data_dir"
        )
    return (
        f"the name {recipe.name!r} is taken: {target} was prepared from {source}, not from {recipe.source}; "
        f"choose another --name or --data_dir, or delete that folder"
    )


def _build(recipe: Recipe, workplace: pathlib.Path) -> pathlib.Path:
    tfds.disable_progress_bar()  # the recipes show their own
    builder = RecipeBuilder(recipe, str(workplace))
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download
        builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def _workplace(name: str, data_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A locked hidden folder, removed at the end whatever happens short of a kill."""
    data_dir.mkdir(parents=True, exist_ok=True)
    _sweep(data_dir)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-", dir=data_dir))
    try:
        with (folder / "lock.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.replace(lock.name, folder / "lock")  # only now may a sweep look at it
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(data_dir: pathlib.Path) -> None:
    """Removes what killed preparations left: the system drops a lock when its process dies."""
    for path in data_dir.glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)


def _flush(folder: pathlib.Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move(built: pathlib.Path, recipe: Recipe, data_dir: pathlib.Path) -> pathlib.Path:
    target = folder_of(recipe, data_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(built, target)
    except OSError:
        if not is_prepared(recipe, data_dir):  # another process may have prepared the same meanwhile
            raise
    return target


@contextlib.contextmanager
def _disk_errors_in_plain_words(data_dir: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError
        if _is_full(error):
            raise DataError(
                f"no space left under {data_dir}: free some, or choose another --data_dir; nothing was kept"
            ) from error
        if isinstance(error, OSError):
            raise DataError(
                f"cannot write under {data_dir} ({_first_line(error)}): choose another --data_dir"
            ) from error
        raise


def _is_full(error: BaseException) -> bool:
    """Also when TFDS has wrapped the error, which loses its number."""
    return getattr(error, "errno", None) in _FULL or any(os.strerror(code) in str(error) for code in _FULL)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
