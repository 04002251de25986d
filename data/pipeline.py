"""Batches for training and evaluation, by grain, exact and restartable.

Training batch k holds the examples kB .. (k+1)B - 1 of an endless stream: the data set shuffled anew for
every epoch, each example with random numbers that depend on (seed, its number in the stream) alone. Process p
of n holds rows pB/n and up to (p+1)B/n of the very batch that one process alone would hold. The position in
the stream is the step; nothing else is saved.

Records are read a batch at a time: ArrayRecord hands each read to its own threads, which costs more than a
small image does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from data import latents
from data.batches import Batches, NumpyBatch, dealt, local_batch, read_ahead
from data.draws import Tape, tapes
from data.errors import DataError
from data.sources import DataSet, Example, Source
from data.views import SINGLE, UNTOUCHED, Views, decode, plain_view

_MAX_SEED = 2**32
Beside = Callable[
    [Example, int], dict[str, np.ndarray]
]  # (example, which of its images) -> what is known of it


def training_batches(
    dataset: DataSet,
    views: Views,
    *,
    batch: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 64,
    start_step: int = 0,
) -> Batches:
    """Endless batches of {"source", "target": uint8 NHWC, "index": int32}, this process's rows of each.

    Where the views ask for them, with "source_camera", "target_camera" [b, 4, 4] and "intrinsics" [b, 3, 3]. Several
    sources are [b, v, h, w, c], and their cameras [b, v, 4, 4].

    Args:
        dataset: whose training split is read.
        views: how two views are made of an example.
        batch: global batch size, a multiple of `process_count`.
        seed: 0 .. 2^32 - 1.
        process_index: which rows this process wants.
        process_count: how many processes share a batch.
        workers: processes that make batches; 0 makes them here. The batches are the same.
        threads: that read ahead, in this process or in each worker; 0 makes a batch when it is asked for.
        prefetch: examples to read ahead, rounded up to whole batches and to one batch a thread.
        start_step: number of the first batch.

    Raises:
        DataError: sizes, pair, batch or seed do not fit; the message names the config key.
    """
    check_fit(dataset, views)
    make = TrainingBatch(source=dataset.split("train"), views=views, seed=_checked_seed(seed))
    rows = grain.MapDataset.range(len(make.source)).seed(seed).shuffle().repeat()
    batches = dealt(rows, make, batch, process_index, process_count)
    local = local_batch(batch, process_count)

    def open_at(step: int) -> grain.IterDataset:
        return read_ahead(batches(step), local=local, threads=threads, prefetch=prefetch, workers=workers)

    return Batches(open_at, start_step)


def evaluation_batches(
    dataset: DataSet,
    split: str,
    *,
    batch: int,
    image_size: int,
    channels: int,
    augment: Views | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    prefetch: int = 64,
    beside: Beside | None = None,
) -> Batches:
    """Every image once, in order: {"image", "labels": {name: int32 [b]}, "index": int32, "valid": bool}.

    Args:
        dataset: to read.
        split: "train" or "test".
        batch: global batch size, a multiple of `process_count`. The last batch is filled up with black images
            whose `valid` is False, whose index is -1 and whose labels are 0.
        image_size: side of the images in pixels.
        channels: 1 or 3; 4 of latents, which are float32 in the place of uint8.
        augment: None gives the middle square; Views gives one source view of each image.
        seed: of those views.
        indices: which images, in which order; None is all. Image i of a posed or grouped set is view i % views
            of scene i // views; where scenes differ, views are the fewest, and what one has more is left out.
        process_index: which rows of each batch this process wants.
        process_count: how many processes share a batch.
        threads: that read ahead; 0 makes a batch when it is asked for.
        prefetch: examples to read ahead, as in `training_batches`.
        beside: what is put beside each image, by names of its own; of padding zeros.

    Raises:
        DataError: no such split, or the sizes do not fit; the message names the config key.
    """
    _check_size(dataset, "source_size", image_size)
    make = EvaluationBatch(
        source=dataset.split(split),
        cameras=dataset.views,
        labels=tuple(dataset.labels),
        image_size=image_size,
        channels=channels,
        augment=augment,
        seed=_checked_seed(seed),
        beside=beside,
    )
    batches = dealt(_padded(make.rows(indices), batch), make, batch, process_index, process_count)
    local = local_batch(batch, process_count)

    def open_at(step: int) -> grain.IterDataset:
        return read_ahead(batches(step), local=local, threads=threads, prefetch=prefetch, workers=0)

    return Batches(open_at)


def _padded(rows: np.ndarray, batch: int) -> grain.MapDataset:
    padding = math.ceil(len(rows) / batch) * batch - len(rows)
    return grain.MapDataset.source(np.concatenate([rows, np.full(padding, -1)]))


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < _MAX_SEED:
        raise DataError(f"config.seed = {seed}: expected 0 .. 2^32 - 1")
    return seed


# Making a batch ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """Rows of the training split to two views each."""

    source: Source
    views: Views
    seed: int

    def __call__(self, number: int, rows: np.ndarray) -> NumpyBatch:
        """`number` is the local batch's in the whole stream, and with it the numbers of its examples."""
        random = tapes(self.seed, number * len(rows), len(rows), self.views.draws)
        made = [self.views.two_views(*pair) for pair in zip(self.source.read(rows), random, strict=True)]
        return {name: np.stack([views[name] for views in made]) for name in made[0]}


@dataclass(frozen=True, kw_only=True)
class EvaluationBatch:
    """Rows of a split, counted in images, to one image each; row -1 is padding."""

    source: Source
    cameras: int
    labels: tuple[str, ...]
    image_size: int
    channels: int
    augment: Views | None
    seed: int
    beside: Beside | None = None

    def rows(self, indices: Sequence[int] | None) -> np.ndarray:
        """The images asked for. Raises DataError where there is no such image."""
        images = len(self.source) * self.cameras
        rows = np.arange(images) if indices is None else np.asarray(indices, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < images:
            raise DataError(f"expected indices in 0..{images - 1}, found {rows.min()}..{rows.max()}")
        return rows

    def __call__(self, number: int, rows: np.ndarray) -> NumpyBatch:
        """Images, labels, index and valid of the rows."""
        valid = rows >= 0
        scenes, which = np.unique(rows[valid] // self.cameras, return_inverse=True)
        examples = self.source.read(scenes)
        return {
            **self._known([examples[i] for i in which], rows),
            "image": self._images([examples[i] for i in which], number, rows),
            "labels": {name: self._labels(examples, which, valid, name) for name in self.labels},
            "index": rows.astype(np.int32),
            "valid": valid,
        }

    def _images(self, examples: list, number: int, rows: np.ndarray) -> np.ndarray:
        shape = (len(rows), self.image_size, self.image_size, self.channels)
        images = np.zeros(shape, latents.dtype_of(self.channels))
        random = tapes(self.seed, number * len(rows), len(rows), self.augment.draws if self.augment else 0)
        places = zip(np.flatnonzero(rows >= 0), examples, random, strict=False)  # padding comes last
        for place, example, rng in places:
            images[place] = self._image(example["images"][rows[place] % self.cameras], rng)
        return images

    def _image(self, encoded: bytes, rng: Tape) -> np.ndarray:
        if self.augment is None:
            return plain_view(encoded, self.image_size, self.channels)
        return self.augment.source_view(decode(encoded, self.channels), self.image_size, rng)

    def _known(self, examples: list, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What is beside each image; padding comes last."""
        if self.beside is None:
            return {}
        pairs = list(zip(examples, rows[rows >= 0] % self.cameras, strict=True))
        found = [self.beside(example, int(which)) for example, which in pairs or [(self.source[0], 0)]]
        whole = {name: np.zeros((len(rows), *x.shape), x.dtype) for name, x in found[0].items()}
        for place, known in enumerate(found if pairs else ()):
            for name, x in known.items():
                whole[name][place] = x
        return whole

    @staticmethod
    def _labels(examples: list, which: np.ndarray, valid: np.ndarray, name: str) -> np.ndarray:
        labels = np.zeros(len(valid), np.int32)
        labels[valid] = [examples[i]["labels"][name] for i in which]
        return labels


# What fits --------------------------------------------------------------------------------------------


def check_fit(dataset: DataSet, views: Views) -> None:
    """Raises DataError where the views cannot be made of this data set; the message names the config key."""
    if views.pair not in SINGLE and dataset.views < 2:
        raise DataError(
            f"config.data.pair = {views.pair!r} needs several cameras of a scene or images of a group, data set "
            f"{dataset.name!r} has single images: set config.data.pair='augment'"
        )
    if dataset.views <= views.sources and views.sources > 1:
        raise DataError(
            f"config.data.sources = {views.sources} and a target ask for {views.sources + 1} cameras of a scene, data "
            f"set {dataset.name!r} has {dataset.views}: set config.data.sources={dataset.views - 1} or less"
        )
    if views.cameras:
        _check_cameras(dataset, views)
    check_channels(dataset, views.channels)
    _check_size(dataset, "image_size", views.image_size)
    _check_size(dataset, "source_size", views.source_size)


def check_channels(dataset: DataSet, channels: int) -> None:
    """Raises DataError where images are read as latents, or latents as images."""
    if dataset.latents != (channels == latents.CHANNELS):
        kind = f"latents: set it to {latents.CHANNELS}" if dataset.latents else "images: set it to 1 or 3"
        raise DataError(f"config.data.channels = {channels}: data set {dataset.name!r} holds {kind}")


def _check_cameras(dataset: DataSet, views: Views) -> None:
    if views.pair not in UNTOUCHED:
        raise DataError(
            f"config.model.rays needs untouched views, config.data.pair = {views.pair!r} moves their pixels: set "
            "config.data.pair='pose', or config.model.rays='none'"
        )
    if not dataset.cameras:
        raise DataError(
            f"config.model.rays needs cameras, and data set {dataset.name!r} has none (camera_to_world "
            "[views, 4, 4] and intrinsics [3, 3] of each scene): set config.model.rays='none'"
        )


def _check_size(dataset: DataSet, key: str, size: int) -> None:
    height, width, _ = dataset.image_shape
    side = min(height, width)
    if size > 2 * side:
        raise DataError(
            f"config.data.{key} = {size} is more than twice the {height} x {width} pixels of data set "
            f"{dataset.name!r}: set it to {2 * side} or less"
        )
    # `resized_crop` averages blocks of this side first; a rest would shift the image under its rays.
    if dataset.cameras and (height != width or side % max(side // size, 1)):
        raise DataError(
            f"config.data.{key} = {size} does not fit the posed {height} x {width} pixel images of data set "
            f"{dataset.name!r}: set it to {side} divided by a whole number, or to more than {side // 2}"
        )
