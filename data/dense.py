"""Masks and keypoints beside images: parsed and decoded for dense tasks, and for nobody else."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from data import boxes
from data.dense_info import UNLABELLED, DenseInfo, from_metadata
from data.errors import DataError
from data.sources import DataSet, Example, Source
from data.views import Near, near

Task = Literal["segmentation", "landmarks"]
TASKS = get_args(Task)
Truth = dict[str, np.ndarray]  # {"mask"}, or {"points", "seen", "scale"}


@dataclass(frozen=True, kw_only=True)
class DenseSource(Source):
    """A source whose examples hold what a task is asked for, too.

    Beside "shape", (h, w) of the images: "masks" [bytes], or [Near], PNG of one channel, or "keypoints" [v, k, 2],
    "seen" [v, k] and "scale" [v], in the images' pixels.
    """

    task: Task
    points: int  # k
    shape: tuple[int, int]

    def _parsed(self, index: int, record: bytes) -> Example:
        features = tf_example_pb2.Example.FromString(record).features.feature
        example = {**super()._parsed(index, record), "shape": self.shape}
        if self.task == "segmentation":
            return {**example, "masks": near(features["masks"].bytes_list.value, self.zoom)}
        places = np.array(features["keypoints"].float_list.value, np.float32).reshape(-1, self.points, 2)
        places -= np.float32(self.corner)
        seen = np.array(features["keypoints_seen"].int64_list.value, np.int32)
        scale = np.array(features["keypoint_scale"].float_list.value, np.float32)
        return {**example, "keypoints": places, "seen": seen.reshape(-1, self.points), "scale": scale}


def info_of(dataset: DataSet) -> DenseInfo:
    """What its masks and keypoints stand for; empty where it has none."""
    path = dataset.path / "metadata.json"
    return from_metadata(json.loads(path.read_text()) if path.is_file() else None)


def with_truth(dataset: DataSet, task: Task) -> DataSet:
    """The data set, its sources read for a task. DataError, saying what to do, where it holds no truth for it."""
    info = info_of(dataset)
    if not (info.classes if task == "segmentation" else info.points):
        raise DataError(_missing(dataset, task))
    more = {"task": task, "points": len(info.points), "shape": dataset.image_shape[:2]}
    sources = {name: dense_source(source, more) for name, source in dataset.splits.items()}
    return dataclasses.replace(dataset, splits=sources)


def dense_source(source: Source, more: dict[str, Any]) -> DenseSource:
    """The same records."""
    return DenseSource(
        **{field.name: getattr(source, field.name) for field in dataclasses.fields(Source)}, **more
    )


def _missing(dataset: DataSet, task: Task) -> str:
    what = "masks" if task == "segmentation" else "keypoints"
    if dataset.name.partition(":")[0] == "views3d":
        root = dataset.path.parent.parent
        return (
            f"data set 'views3d' in {dataset.path} was prepared before it had {what}: put the version that has them "
            f"beside it with python -m data.prepare views3d --data_dir={root}"
        )
    return (
        f"data set {dataset.name!r} in {dataset.path} has no {what}, which --task={task} is trained on: take one that "
        "has, such as --data=views3d"
    )


# What is true of one image -----------------------------------------------------------------------------


def truth(example: Example, which: int, size: int) -> Truth:
    """Of image `which`, once its middle square is scaled to `size`: what the source's task asks for.

    Segmentation: mask uint8 [size, size]. Landmarks: points float32 [k, 2] as (x, y) in pixels, (0, 0) the centre of
    the first; seen int32 [k], UNLABELLED outside of the square; scale float32 [], in the same pixels.
    """
    if "masks" in example:
        return {"mask": _middle(decode_mask(example["masks"][which]), size)}
    height, width = example["shape"]
    box = boxes.square(height, width)
    corner, factor = np.array([box.left, box.top], np.float32), np.float32(size / box.height)
    points = (example["keypoints"][which] - corner + np.float32(0.5)) * factor - np.float32(0.5)
    seen = within(points, example["seen"][which], size)
    return {"points": points, "seen": seen, "scale": example["scale"][which] * factor}


def within(points: np.ndarray, seen: np.ndarray, size: int) -> np.ndarray:
    """What is seen [k] of points [k, 2] in an image of this size: those outside count as not labelled."""
    outside = ((points < -0.5) | (points > size - 0.5)).any(-1)
    return np.where(outside, np.int32(UNLABELLED), seen)


def decode_mask(encoded: bytes | Near) -> np.ndarray:
    """PNG bytes to class numbers, uint8 [h, w]. DataError for anything else."""
    if isinstance(encoded, Near):
        return encoded.cut(decode_mask(encoded.encoded))
    mask = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED) if encoded else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(
            f"expected a mask of one channel, found {len(encoded)} bytes that are none: the data set in "
            "config.data.dir is damaged, delete its folder and prepare it again"
        )
    return mask


def _middle(mask: np.ndarray, size: int) -> np.ndarray:
    """The middle square; of each pixel the class at its middle."""
    box = boxes.square(*mask.shape)
    part = boxes.part_of(mask, box)
    return (
        part if box.height == size else cv2.resize(part, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    )
