"""SODA's two views: our pipeline against torchvision's transforms in a DataLoader, images/s on one core.

    python -m experiments.benchmarks.pipeline_speed [--sizes=32,224] [--rounds=9]

Both read the same encoded images from memory (PNG of 32 x 32 pixels for views of 32, JPEG of 500 x 375 for
views of 224), make the two views of spec 1.8 of each and give uint8 batches. An image counts once, though it
gives two views. One process, bound to one core, no worker processes, by turns.

Needs torch and torchvision. Beside the CPU build of PyTorch, torchvision's transforms work but other packages
that see it may fail, so install it apart: `pip install --no-deps --target=DIR torchvision==0.28.0`, and set
PYTHONPATH=DIR. Without it, only our own figures are printed.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from absl import app, flags
from tensorflow_datasets.proto import tf_example_pb2

from data.pipeline import training_batches
from data.sources import DataSet, Source
from data.views import Views
from experiments.benchmarks import torchvision_views
from experiments.benchmarks.alternating import Turn, hardware, measure, table, use_cores, versions

OURS, THEIRS = "soda_jax", "torchvision"

_SIZES = flags.DEFINE_list("sizes", ["32", "224"], "Sides of the views in pixels: 32, 224 or both.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Turns of each that count.", lower_bound=1)
_IMAGES = flags.DEFINE_integer(
    "images", 0, "Images in memory, and images a turn; 0: 4096 small or 256 large."
)
_BATCH = flags.DEFINE_integer("batch", 64, "Images a batch.", lower_bound=1)


class Stored(NamedTuple):
    """What is in memory for views of one size."""

    height: int
    width: int
    extension: str
    images: int  # of a turn, too: a second or more


STORED = {32: Stored(32, 32, ".png", 4096), 224: Stored(375, 500, ".jpg", 256)}  # size of the views


class Records(list):
    """Serialized examples in memory, read as TFDS's ArrayRecord source is."""

    def __getitems__(self, rows: list[int]) -> list[bytes]:
        return [self[row] for row in rows]


def main(argv: list[str]) -> None:
    """Prints the hardware and a table for each size."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    cores = use_cores(1)
    print(hardware(cores))
    print(versions("grain", "opencv-python-headless", "torch", "torchvision", "pillow"))
    for size in _SIZES.value:
        compare(int(size))


def compare(size: int) -> None:
    """Measures and prints one size."""
    if size not in STORED:
        raise app.UsageError(f"--sizes: expected some of {sorted(STORED)}, found {size}")
    images = _IMAGES.value or STORED[size].images
    batch = min(_BATCH.value, images)
    encoded, views = encoded_images(images, *STORED[size][:3]), Views(image_size=size, source_size=size)
    with training_batches(dataset(encoded, size), views, batch=batch, seed=0, threads=0) as batches:
        turns = {OURS: turn(batches, images // batch)}
        turns |= their_turn(encoded, views, batch)
        print(f"\nviews of {size} x {size}, batch {batch}, {images} images of about {len(encoded[0])} bytes")
        print(table(measure(turns, _ROUNDS.value), OURS, THEIRS))


def their_turn(encoded: list[bytes], views: Views, batch: int) -> dict[str, Turn]:
    """The DataLoader's turn; nothing, and a word, where torchvision is not there."""
    try:
        batches = torchvision_views.batches(encoded, views, batch)
    except ImportError as error:
        print(f"no comparison: {error}; see the top of experiments/benchmarks/pipeline_speed.py")
        return {}
    return {THEIRS: turn(batches, len(encoded) // batch)}


def turn(batches: Iterator[Any], count: int) -> Turn:
    """Takes `count` batches."""

    def take() -> int:
        return sum(len(batch["source"]) for batch in itertools.islice(batches, count))

    return take


def dataset(encoded: list[bytes], size: int) -> DataSet:
    """Our data set over images in memory."""
    records = Records(serialized(image) for image in encoded)
    source = Source(records=records, image_key="image", label_keys={})
    return DataSet(
        name="memory",
        path=Path("memory"),
        splits={"train": source},
        split_names={"train": "train"},
        labels={},
        label_names={},
        image_shape=(*STORED[size][:2], 3),
        manifest="",
    )


def serialized(image: bytes) -> bytes:
    """A tf.train.Example that holds one image."""
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(image)
    return example.SerializeToString()


def encoded_images(count: int, height: int, width: int, extension: str) -> list[bytes]:
    """Random clouds of colour with some grain, about as hard to decode as photographs."""
    rng = np.random.default_rng(0)
    return [cv2.imencode(extension, clouds(rng, height, width))[1].tobytes() for _ in range(count)]


def clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One uint8 image `[height, width, 3]`."""
    image = rng.normal(0, 6, (height, width, 3))
    for cells in (3, 8, 20):
        coarse = rng.normal(0, 40 / np.sqrt(cells / 3), (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 128, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    app.run(main)
