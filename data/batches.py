"""An iterator of batches whose whole state is its step, on top of grain's threads and worker processes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np

from data.errors import DataError

NumpyBatch = dict[str, Any]
MakeBatch = Callable[[int, np.ndarray], NumpyBatch]  # (number of the local batch, its rows)


class Batches(Iterator[NumpyBatch]):
    """Iterates over batches; its state is the number of batches given so far.

    Close it, or use it in `with`: it owns threads and perhaps worker processes.
    """

    def __init__(self, open_at: Callable[[int], grain.IterDataset], start_step: int = 0):
        self._open_at = open_at
        self._iterator: grain.DatasetIterator | None = None
        self._step = start_step

    def __next__(self) -> NumpyBatch:
        if self._iterator is None:
            self._iterator = iter(self._open_at(self._step))
        batch = next(self._iterator)
        self._step += 1
        return batch

    def get_state(self) -> int:
        """The step: how many batches come before the next one."""
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


def dealt(
    rows: grain.MapDataset, make: MakeBatch, batch: int, process_index: int, process_count: int
) -> Callable[[int], grain.MapDataset]:
    """Step -> this process's batches from that step on.

    Rows are cut into local batches, numbered, and dealt to the processes last: what a number stands for does
    not depend on who makes it, and the processes' batches side by side are the batch of one process.
    """
    local = local_batch(batch, process_count)
    batches = rows.batch(local, batch_fn=np.array).map_with_index(make)
    return lambda step: batches[step * process_count + process_index :: process_count]


def local_batch(batch: int, process_count: int) -> int:
    """Rows of one process.

    Raises:
        DataError: the batch cannot be shared out.
    """
    if batch < 1 or batch % process_count:
        raise DataError(
            f"config.train.batch = {batch}: expected a positive multiple of the {process_count} processes"
        )
    return batch // process_count


def read_ahead(
    batches: grain.MapDataset, *, local: int, threads: int, prefetch: int, workers: int
) -> grain.IterDataset:
    """Batches made by `threads` (of each of `workers` processes, if any), `prefetch` examples ahead.

    The buffer holds whole batches, and one for each thread at least.
    """
    ahead = max(threads, math.ceil(prefetch / local)) if threads else 0
    ready = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    return ready.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)) if workers else ready
