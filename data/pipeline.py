"""Batches for training and evaluation, by grain, exact and restartable.

Training batch k holds the examples kB .. (k+1)B - 1 of an endless stream: the data set shuffled anew for
every epoch, each example with a generator that depends on (seed, its number in the stream) alone. The stream
is cut into local batches, which are dealt to the processes last: process p of n holds rows pB/n and up to
(p+1)B/n of the very batch that one process alone would hold. The position in the stream is the step; nothing
else is saved.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from data.errors import DataError
from data.sources import DataSet, Source
from data.views import Views, decode, plain_view

NumpyBatch = dict[str, Any]
_MAX_SEED = 2**32


class Batches(Iterator[NumpyBatch]):
    """An iterator of batches whose whole state is its step: the number of batches given so far.

    Close it (or use it in `with`): it owns threads and perhaps worker processes.
    """

    def __init__(self, open_at: Callable[[int], grain.DatasetIterator], start_step: int = 0):
        self._open_at = open_at
        self._iterator: grain.DatasetIterator | None = None
        self._step = start_step

    def __next__(self) -> NumpyBatch:
        if self._iterator is None:
            self._iterator = self._open_at(self._step)
        batch = next(self._iterator)
        self._step += 1
        return batch

    def get_state(self) -> int:
        """The step: how many batches came before the next one."""
        return self._step

    def set_state(self, step: int) -> None:
        """Goes to any step, forward or back; the next batch is that step's."""
        self.close()
        self._step = step

    def close(self) -> None:
        """Ends threads and workers. The next batch, if asked for, starts them again."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_) -> None:
        self.close()


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
        DataError: sizes, pair or batch do not fit; the message names the config key.
    """
    check_fit(dataset, views)
    local = _local_batch(batch, process_count)
    source = dataset.split("train")
    if not 0 <= seed < _MAX_SEED:
        raise DataError(f"config.seed = {seed}: expected 0 .. 2^32 - 1")
    if not len(source):
        raise DataError(
            f"the training split of data set {dataset.name!r} is empty: change config.data.train_split"
        )
    stream = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(views.two_views)

    def open_at(step: int) -> grain.DatasetIterator:
        mine = stream.batch(local)[step * process_count + process_index :: process_count]
        return iter(_ahead(mine, local, threads, prefetch, workers))

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
) -> Batches:
    """Every image once, in order: {"image", "labels": {name: int32 [b]}, "index": int32, "valid": bool}.

    Args:
        dataset: to read.
        split: "train" or "test".
        batch: global batch size, a multiple of `process_count`. The last batch is filled up with black images
            whose `valid` is False and whose index is -1.
        image_size: side of the images in pixels.
        channels: 1 or 3.
        augment: None gives the middle square; Views gives one source view of each image.
        seed: of those views.
        indices: which images, in which order; None is all. Image i of a posed set is camera i % views of
            scene i // views.
        process_index: which rows of each batch this process wants.
        process_count: how many processes share a batch.
        threads: that read ahead.
        prefetch: examples to read ahead, as in `training_batches`.

    Raises:
        DataError: no such split, or the sizes do not fit; the message names the config key.
    """
    _check_size(dataset, "source_size", image_size)
    local = _local_batch(batch, process_count)
    source = dataset.split(split)
    rows = np.arange(len(source) * dataset.views) if indices is None else np.asarray(indices, np.int64)
    padding = math.ceil(len(rows) / batch) * batch - len(rows)
    single = SingleImages(
        source=source,
        rows=np.concatenate([rows, np.full(padding, -1)]),
        cameras=dataset.views,
        image_size=image_size,
        channels=channels,
        augment=augment,
        labels=tuple(dataset.labels),
    )
    images = grain.MapDataset.source(single).seed(seed).random_map(single.view)

    def open_at(step: int) -> grain.DatasetIterator:
        mine = images.batch(local)[step * process_count + process_index :: process_count]
        return iter(_ahead(mine, local, threads, prefetch, workers=0))

    return Batches(open_at)


@dataclass(frozen=True, kw_only=True)
class SingleImages:
    """The images of a split one by one, as a source; row -1 is padding."""

    source: Source
    rows: np.ndarray
    cameras: int
    image_size: int
    channels: int
    augment: Views | None
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = int(self.rows[position])
        return self._padding() if row < 0 else self._example(row)

    def _example(self, row: int) -> dict[str, Any]:
        example = self.source[row // self.cameras]
        return _labelled(example["images"][row % self.cameras], example["labels"], row)

    def _padding(self) -> dict[str, Any]:
        return _labelled(b"", dict.fromkeys(self.labels, 0), -1)

    def view(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Replaces the encoded image by pixels."""
        return example | {"image": self._pixels(example["image"], rng)}

    def _pixels(self, encoded: bytes, rng: np.random.Generator) -> np.ndarray:
        if not encoded:
            return np.zeros((self.image_size, self.image_size, self.channels), np.uint8)
        if self.augment is None:
            return plain_view(encoded, self.image_size, self.channels)
        return self.augment.source_view(decode(encoded, self.channels), self.image_size, rng)


def _labelled(encoded: bytes, labels: dict[str, int], row: int) -> dict[str, Any]:
    labels = {name: np.int32(value) for name, value in labels.items()}
    return {"image": encoded, "labels": labels, "index": np.int32(row), "valid": np.bool_(row >= 0)}


def _ahead(
    batches: grain.MapDataset, local: int, threads: int, prefetch: int, workers: int
) -> grain.IterDataset:
    ahead = max(threads, math.ceil(prefetch / local)) if threads else 0
    ready = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    return ready.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)) if workers else ready


def _local_batch(batch: int, process_count: int) -> int:
    if batch < 1 or batch % process_count:
        raise DataError(
            f"batch of {batch} images: expected a positive multiple of the {process_count} processes"
        )
    return batch // process_count


# What fits --------------------------------------------------------------------------------------------


def check_fit(dataset: DataSet, views: Views) -> None:
    """Raises DataError where the views cannot be made of this data set; the message names the config key."""
    if views.pair != "augment" and dataset.views < 2:
        raise DataError(
            f"config.data.pair = {views.pair!r} needs several cameras of a scene, data set {dataset.name!r} "
            "has single images: set config.data.pair='augment'"
        )
    _check_size(dataset, "image_size", views.image_size)
    _check_size(dataset, "source_size", views.source_size)


def _check_size(dataset: DataSet, key: str, size: int) -> None:
    height, width, _ = dataset.image_shape
    side = min(height, width)
    if size > 2 * side:
        raise DataError(
            f"config.data.{key} = {size} is more than twice the {height} x {width} pixels of data set "
            f"{dataset.name!r}: set it to {2 * side} or less"
        )
    if dataset.views > 1 and (height != width or (side % size and size % side)):
        raise DataError(
            f"config.data.{key} = {size} does not fit the posed {height} x {width} pixel images of data set "
            f"{dataset.name!r}: set it to {side} divided by a whole number, or to {2 * side}"
        )
