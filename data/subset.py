"""A part of the training examples, as if no more had been labelled: a share of them, or so many of each class.

The same examples every time for the same seed, whatever else is asked for: those of 1% are among those of 10%.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.errors import DataError
from data.sources import DataSet, Source

STREAM = 0x5B  # of the seed, beside those of the batches
PIECE = 1024  # examples read at a time to see their labels


@dataclass(frozen=True, kw_only=True)
class Rows:
    """These rows of some records, numbered anew."""

    records: Any
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> bytes:
        return self.records[self.rows[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[bytes]:
        return self.records.__getitems__([self.rows[index] for index in indices])


def labelled_subset(dataset: DataSet, *, fraction: float = 1.0, shots: int = 0, seed: int = 0) -> DataSet:
    """The data set with fewer training examples.

    Args:
      dataset: of single images or of scenes; an example is either.
      fraction: share of the examples, in (0, 1]; of each class alike where there is one label.
      shots: examples of each class instead; 0: `fraction` counts. There must be one label.
      seed: of the choice.

    Raises:
      DataError: a fraction or number of shots that is none, no label or several for shots, or too few examples.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"finetune.fraction must be above 0, and 1 at most, found {fraction}")
    if shots < 0 or (shots and fraction != 1):
        raise DataError(f"finetune.shots={shots} must be 0 or more, and goes with finetune.fraction=1 alone")
    if shots and len(dataset.labels) != 1:
        raise DataError(
            f"finetune.shots={shots} counts examples of the classes of one label, and data set {dataset.name!r} has "
            f"{', '.join(dataset.labels) or 'none'}: take finetune.fraction"
        )
    if fraction == 1 and not shots:
        return dataset
    source = dataset.split("train")
    kept = [rows[: shots or max(round(fraction * len(rows)), 1)] for rows in groups(dataset, source, seed)]
    fewest = min(map(len, kept))
    if shots and fewest < shots:
        raise DataError(
            f"finetune.shots={shots}: a class of {dataset.name!r} has {fewest} training examples only"
        )
    rows = np.sort(np.concatenate(kept)).tolist()
    return replace(
        dataset,
        splits={**dataset.splits, "train": replace(source, records=Rows(records=source.records, rows=rows))},
    )


def groups(dataset: DataSet, source: Source, seed: int) -> list[np.ndarray]:
    """Shuffled rows: of each class where there is one label, else of all examples."""
    rng = np.random.default_rng([seed, STREAM])
    if len(dataset.labels) != 1:
        return [rng.permutation(len(source))]
    (label,) = dataset.labels
    found = defaultdict(list)
    for first in range(0, len(source), PIECE):
        rows = range(first, min(first + PIECE, len(source)))
        for row, example in zip(rows, source.read(rows), strict=True):
            found[example["labels"][label]].append(row)
    return [rng.permutation(found[number]) for number in sorted(found)]
