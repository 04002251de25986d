"""Sets of images by the names that a command line gives them: FOLDER, tfds:NAME, tfds:NAME:test."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.batches import Batches
from data.errors import DataError
from data.image_files import SPLIT, open_folder
from data.pipeline import evaluation_batches
from data.sources import DataSet, open_data_set
from experiments.embedding import images_key
from experiments.probing import Say, shown
from soda_jax.parallel import processes
from soda_jax.types import Batch

TFDS = "tfds:"
THREADS = 2  # that read images ahead
SEED = 0  # of which images are taken where not all are


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one or two splits of a data set."""

    name: str  # as it was given
    dataset: DataSet
    chosen: dict[str, np.ndarray]  # split -> numbers of its images, ascending

    @property
    def side(self) -> int:
        """The shorter one of a typical image, in pixels."""
        return min(self.dataset.image_shape[:2])

    @property
    def key(self) -> str:
        """16 hexadecimal digits that other images do not have."""
        digest = hashlib.sha256()
        for split, images in self.chosen.items():
            count = len(self.dataset.split(split))
            digest.update(f"{split} {images_key(self.dataset, split, 0, count)} ".encode() + images.tobytes())
        return digest.hexdigest()[:16]

    def check(self, size: int) -> None:
        """Raises DataError where images of this side cannot be made of them."""
        try:
            self._stream(next(iter(self.chosen)), size=size, channels=3, batch=processes.process_count())
        except DataError as error:
            raise DataError(f"{self.name} at {size} pixels (--size, or an encoder's own): {error}") from error

    def batches(self, what: str, *, batch: int, say: Say, **read: int) -> Iterator[Batch]:
        """Of these images once, with progress; of several processes each gets its rows.

        Args:
          what: they are called in the progress.
          batch: images at a time, of all processes together.
          say: prints a line.
          read: size and channels.

        Raises DataError for an image that cannot be read.
        """
        for split, images in self.chosen.items():
            with self._stream(split, batch=batch, **read) as stream:
                yield from shown(stream, f"{what}, {split}", math.ceil(len(images) / batch), say)

    def _stream(self, split: str, *, size: int, channels: int, batch: int) -> Batches:
        return evaluation_batches(
            self.dataset,
            split,
            batch=batch,
            image_size=size,
            channels=channels,
            indices=self.chosen[split],
            process_index=processes.process_index(),
            process_count=processes.process_count(),
            threads=THREADS,
        )


def image_set(name: str, data_dir: str = "", most: int | None = None) -> ImageSet:
    """The images that a name means, or `most` of them, drawn at random, the same ones every time.

    Raises DataError where they cannot be opened.
    """
    dataset, splits = opened(name, data_dir)
    counts = [len(dataset.split(split)) * dataset.views for split in splits]
    if sum(counts) < 2:
        raise DataError(f"{name} holds {sum(counts)} image(s): a distribution needs 2 or more")
    return ImageSet(name=name, dataset=dataset, chosen=dict(zip(splits, taken(counts, most), strict=True)))


def opened(name: str, data_dir: str, channels: int = 3) -> tuple[DataSet, list[str]]:
    """The data set, and which of its splits; channels: of the images of a folder."""
    if not name.startswith(TFDS):
        return open_folder(name, channels), [SPLIT]
    whole = name.removeprefix(TFDS)
    inside, _, split = whole.rpartition(":")
    if split in ("train", "test"):
        dataset = open_data_set(inside, data_dir)
        dataset.split(split)
        return dataset, [split]
    dataset = open_data_set(whole, data_dir)
    return dataset, list(dataset.splits)


def taken(counts: list[int], most: int | None) -> list[np.ndarray]:
    """Numbers of the images that are taken from each split."""
    total, starts = sum(counts), np.cumsum([0, *counts])
    images = np.arange(total)
    if most is not None and most < total:
        images = np.sort(np.random.default_rng(SEED).choice(total, most, replace=False))
    return [images[(starts[i] <= images) & (images < starts[i + 1])] - starts[i] for i in range(len(counts))]


def check_ahead(out: str, ending: str, batch: int) -> None:
    """Raises ValueError for an --out or a --batch that would fail after hours."""
    if not out.endswith(ending):
        raise ValueError(f"--out={out}: expected a name that ends in {ending}")
    if not Path(out).parent.is_dir():
        raise ValueError(f"--out={out}: there is no folder {Path(out).parent}: make it")
    if batch < 1 or batch % processes.process_count():
        raise ValueError(f"--batch={batch}: expected a multiple of {processes.process_count()} process(es)")
