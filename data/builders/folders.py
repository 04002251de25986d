"""What the builders that read folders share: listing them, looking at headers, encoding files by the group."""

import functools
import hashlib
import itertools
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from data.builders import images, workers
from data.builders.progress import report
from data.builders.recipe import Example
from data.errors import DataError

T = TypeVar("T")
Shape = tuple[int | None, int | None, int]


def listable_root(source: str | os.PathLike) -> pathlib.Path:
    """The folder that --source means. Raises DataError where there is none, or it cannot be listed."""
    root = pathlib.Path(source).expanduser().resolve()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give --source=DIR, a folder of images")
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise cannot_list(error) from error
    return root


def cannot_list(error: OSError) -> DataError:
    """The exception to raise for a folder that the system does not show."""
    return DataError(f"{error.filename} cannot be listed ({error.strerror}): make it readable")


def split_folders(root: pathlib.Path, kind: str, splits: Sequence[str]) -> dict[str, pathlib.Path]:
    """The folders that are named after splits; {} where none is.

    Args:
        root: the folder above them.
        kind: what else a folder may be ("class"), for messages.
        splits: the names that count.

    Raises:
        DataError: test without train, other folders beside train, a name with capitals.
    """
    folders = {path.name for path in subfolders(root)}
    misspelt = sorted(name for name in folders if name.lower() in splits and name not in splits)
    if misspelt:
        raise DataError(
            f"{root / misspelt[0]}: write it {misspelt[0].lower()}/, or give the {kind} another name"
        )
    if "test" in folders and "train" not in folders:
        raise DataError(f"{root} has test/ without train/: add train/, or rename test/ to train/")
    others = sorted(folders - set(splits))
    if "train" in folders and others:
        only = f"{'/, '.join(splits[:-1])}/ and {splits[-1]}/"
        raise DataError(f"{root} has {others[0]}/ beside train/: only {only} are read; rename or move it")
    return {split: root / split for split in splits if "train" in folders and split in folders}


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those that are not hidden, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def direct_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images in the folder itself, by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _is_image(path, folder))


def images_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images in the folder and in those inside it, by name. Hidden ones are passed over."""
    walked = (
        pathlib.Path(place) / file for place, _, files in os.walk(folder, onerror=_fail) for file in files
    )
    return sorted(path for path in walked if _is_image(path, folder))


def _fail(error: OSError) -> None:
    raise error


def _is_image(path: pathlib.Path, folder: pathlib.Path) -> bool:
    check_text(path)
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in images.EXTENSIONS


def read_text(path: pathlib.Path, what: str) -> str:
    """A text file. Raises DataError, saying what it is, where it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): it is {what}, put it there") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: it is {what}, fetch it again") from error


def check_text(path: pathlib.Path) -> None:
    """Raises DataError for a name that no key can hold."""
    if str(path).encode(errors="replace").decode() != str(path):
        raise DataError(f"{str(path)!r}: its name is not UTF-8, which a data set's keys must be; rename it")


def read_headers(paths: Sequence[pathlib.Path]) -> list[images.Header]:
    """The header of each. Raises DataError, naming the file, for one that is no image."""
    looked = workers.ordered_map(images.read_header, paths, processes=processes_for(len(paths)))
    return list(report(looked, total=len(paths), label="reading headers", unit="images"))


def common_shape(headers: Iterable[images.Header]) -> Shape:
    """(h, w, c): h and w only where all images agree; grey only where all are grey."""
    found = set(headers)
    sizes = {(header.height, header.width) for header in found}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    return height, width, 1 if all(header.grey for header in found) else 3


def processes_for(count: int) -> int:
    """Starting a worker takes a second: a small folder is read without."""
    return workers.core_count() if count > 2000 else 1


def made(make: Callable[[T], Example], items: Sequence[T], label: str, unit: str) -> Iterator[Example]:
    """What `make`, which must be picklable, makes of each item, in order; progress counts items."""
    found = workers.ordered_map(make, items, processes=processes_for(len(items)))
    return report(found, total=len(items), label=label, unit=unit)


def encoded_groups(
    groups: Mapping[str, Sequence[pathlib.Path]], encode: functools.partial, label: str
) -> Iterator[tuple[str, list[bytes]]]:
    """Each group with what `encode` makes of its files, in order; progress counts files."""
    owners = [name for name, paths in groups.items() for _ in paths]
    paths = itertools.chain.from_iterable(groups.values())
    encoded = workers.ordered_map(encode, paths, processes=processes_for(len(owners)))
    watched = report(encoded, total=len(owners), label=label, unit="images")
    for name, pairs in itertools.groupby(zip(owners, watched, strict=True), key=operator.itemgetter(0)):
        yield name, [image for _, image in pairs]


def fingerprint(root: pathlib.Path, paths: Iterable[pathlib.Path], *others: str) -> str:
    """From names and sizes, for contents would mean reading everything twice, and whatever else decides."""
    digest = hashlib.sha256("\0".join(others).encode())
    for path in paths:
        name = os.path.relpath(path, root).replace(os.sep, "/")
        digest.update(f"{name}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()
