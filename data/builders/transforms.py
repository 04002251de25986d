"""Reading one object's transforms files: NeRF's `transforms_{train,val,test}.json`, or one `transforms.json`.

    {"camera_angle_x": 0.69, "frames": [{"file_path": "./train/r_0", "transform_matrix": [[...], ...]}, ...]}

Image paths count from the file's folder, with or without their extension. What describes the lens may stand beside
the frames or in each of them (see `nerf_cameras`).
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data.builders import nerf_cameras
from data.builders.images import EXTENSIONS
from data.errors import DataError

WHOLE = "transforms.json"
PARTS = {split: f"transforms_{split}.json" for split in ("train", "val", "test")}
_LENS = (*nerf_cameras.LENS, *nerf_cameras.DISTORTION, "camera_model", "is_fisheye")


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One frame of a file."""

    image: pathlib.Path
    camera_to_world: np.ndarray  # [4, 4] float32, OpenCV
    lens: Mapping[str, Any]  # what `nerf_cameras.intrinsics` takes
    where: str  # file and frame, for messages


def is_object(folder: pathlib.Path) -> bool:
    """Whether the folder itself has a transforms file."""
    return any((folder / name).exists() for name in (WHOLE, *PARTS.values()))


def read_object(folder: pathlib.Path) -> dict[str, list[View]]:
    """The views of a folder's object by the file that has them: {"train", "val", "test"} or, of one file, {"": views}.

    Raises:
        DataError: no file, transforms.json beside others, val or test without train, an image in two frames, and
            whatever is wrong with a file.
    """
    parts = {split: folder / name for split, name in PARTS.items() if (folder / name).exists()}
    whole = (folder / WHOLE).exists()
    if not whole and not parts:
        raise DataError(f"{folder} has no {PARTS['train']} and no {WHOLE}: add one, or move the folder away")
    if whole and parts:
        raise DataError(f"{folder} has {WHOLE} beside {PARTS[next(iter(parts))]}: remove one of them")
    if not whole and "train" not in parts:
        raise DataError(f"{folder} has no {PARTS['train']}: add it, or rename one of the others")
    found = {split: read_file(path) for split, path in parts.items()} or {"": read_file(folder / WHOLE)}
    _check_distinct(view for views in found.values() for view in views)
    return found if len(found) > 1 else {"": next(iter(found.values()))}


def read_file(path: pathlib.Path) -> list[View]:
    """The frames of one file, in its order. Raises DataError, naming file and frame."""
    content = _json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{path} has no frames: expected {{'frames': [...]}} with a frame for each image")
    lens = {key: content[key] for key in _LENS if key in content}
    return [_view(path, number, frame, lens) for number, frame in enumerate(frames)]


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({str(error).splitlines()[0]}): correct or replace it"
        ) from error


def _view(path: pathlib.Path, number: int, frame: Any, lens: Mapping[str, Any]) -> View:
    where = f"{path}, frame {number}"
    with named(where):
        if not isinstance(frame, dict):
            raise DataError(f"expected an object with file_path and transform_matrix, found {frame!r:.40}")
        missing = [key for key in ("file_path", "transform_matrix") if key not in frame]
        if missing:
            raise DataError(f"{missing[0]} is missing: add it, or remove the frame")
        return View(
            image=_image(path.parent, frame["file_path"]),
            camera_to_world=nerf_cameras.camera_to_world(frame["transform_matrix"]),
            lens={**lens, **{key: frame[key] for key in _LENS if key in frame}},
            where=where,
        )


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Puts the place in front of what went wrong there."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _image(folder: pathlib.Path, file_path: Any) -> pathlib.Path:
    if not isinstance(file_path, str) or not file_path:
        raise DataError(f"file_path is {file_path!r}: expected the path of an image")
    path = folder / file_path.replace("\\", "/")
    endings = ("", *EXTENSIONS, *(ending.upper() for ending in EXTENSIONS))
    candidates = [path.parent / f"{path.name}{ending}" for ending in endings]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise DataError(
            f"there is no image {path} (with or without .png, .jpg, ...): add it, or correct file_path"
        )
    return found


def _check_distinct(views: Iterator[View]) -> None:
    seen: dict[pathlib.Path, str] = {}
    for view in views:
        image = view.image.resolve()
        if image in seen:
            raise DataError(
                f"{view.where}: {view.image} is the image of {seen[image]} too: remove one of them"
            )
        seen[image] = view.where
