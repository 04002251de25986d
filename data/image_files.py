"""The image files below a folder, read as they lie there: for jobs that look at each of them once.

    open_folder(root, channels).split("test").read(rows) -> [{"images": [encoded], "labels": {}, "index": row}, ...]

Every file with an image's extension counts, however deep; hidden ones are passed over. Training reads prepared data
sets instead (`python -m data.prepare folder`): they are several times as fast, and are checked once for all.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.builders.images import EXTENSIONS, read_encoded, read_header
from data.errors import DataError
from data.sources import DataSet
from data.views import near

SPLIT = "test"  # what its one split is called


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """What `data.sources.Source` is to a prepared split."""

    root: Path
    names: tuple[str, ...]  # below root, with "/"
    channels: int
    cameras: bool = False
    zoom: float = 1.0
    corner: tuple[int, int] = (0, 0)  # of the first image; others may have another size

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several examples. Raises DataError, naming the file, for one that is gone or no image."""
        return [self[int(row)] for row in rows]

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {
            "images": near([read_encoded(self.root / self.names[row], self.channels)], self.zoom),
            "labels": {},
            "index": row,
        }

    def fingerprint(self, start: int, stop: int) -> str:
        """Of the names and sizes of some files; contents would mean reading everything twice."""
        digest = hashlib.sha256()
        for name in self.names[start:stop]:
            digest.update(f"{name}\0{(self.root / name).stat().st_size}\n".encode())
        return digest.hexdigest()


def open_folder(root: str | Path, channels: int) -> DataSet:
    """The images below a folder, in the order of their names.

    Args:
        root: the folder.
        channels: 1 or 3; images are converted.

    Raises:
        DataError: no such folder, no image in it, or the first image cannot be read.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give a folder of images, or tfds:NAME")
    names = tuple(sorted(found_below(root)))
    if not names:
        raise DataError(f"no images below {root}: expected files such as x.jpg or x.png, however deep")
    header = read_header(root / names[0])
    files = ImageFiles(root=root, names=names, channels=channels)
    return DataSet(
        name=root.name,
        path=root,
        splits={SPLIT: files},
        split_names={SPLIT: SPLIT},
        labels={},
        label_names={},
        image_shape=(header.height, header.width, channels),
        manifest="",
        present=(SPLIT,),
    )


def found_below(root: Path) -> list[str]:
    """Names of image files below a folder, with "/". Raises DataError where a folder cannot be listed."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed ({error.strerror}): make it readable") from error

    found = []
    for place, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(root)
        found += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        ]
    return found
