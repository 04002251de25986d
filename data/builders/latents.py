"""A data set of latents, from parts that were made one after the other: only one of them is ever in memory.

    PARTS/<split>_<first>.npz    latents float16 [n, copies, h, w, 4], index [n], and label_<name> [n] of each label

A part is there whole or not at all, so that making them goes on where it was stopped.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from data import latents
from data.builders.recipe import Recipe, Split
from data.sources import DataSet


def write_part(path: pathlib.Path, found: np.ndarray, index: np.ndarray, labels: Mapping[str, np.ndarray]):
    """Latents [n, copies, h, w, 4] of the examples with these numbers and labels."""
    trial = path.with_name(f".{path.name}")
    columns = {f"label_{name}": np.asarray(column) for name, column in labels.items()}
    with trial.open("wb") as file:
        np.savez(file, latents=found.astype(np.float16), index=np.asarray(index), **columns)
    trial.replace(path)


def recipe(
    name: str,
    origin: DataSet,
    parts: Mapping[str, Sequence[pathlib.Path]],
    side: int,
    about: Mapping[str, str],
) -> Recipe:
    """The data set of these parts, by split, with the labels of their origin; about: source, fingerprint, words."""
    image = tfds.features.Image(shape=(side, side, latents.CHANNELS), dtype=np.uint16, encoding_format="png")
    classes = {label: _classes(origin, label) for label in origin.labels}
    return Recipe(
        name=name,
        version="1.0.0",
        description=about["words"],
        features=tfds.features.FeaturesDict({"images": tfds.features.Sequence(image), **classes}),
        splits={
            origin.split_names[split]: Split(
                size=len(origin.split(split)), examples=functools.partial(_generate, paths)
            )
            for split, paths in parts.items()
        },
        source=about["source"],
        fingerprint=about["fingerprint"],
        image_shape=(side, side, latents.CHANNELS),
    )


def _classes(origin: DataSet, label: str) -> tfds.features.ClassLabel:
    names = origin.label_names[label]
    fields = {"names": names} if names else {"num_classes": origin.labels[label]}
    return tfds.features.ClassLabel(**fields)


def _generate(paths: Sequence[pathlib.Path]) -> Iterator:
    for path in paths:
        with np.load(path) as file:
            part = {name: file[name] for name in file.files}
        names = [name for name in part if name.startswith("label_")]
        for row, index in enumerate(part["index"]):
            labels = {name.removeprefix("label_"): int(part[name][row]) for name in names}
            copies = [latents.encode(copy) for copy in part["latents"][row]]
            yield f"{index:09d}", {"images": copies, **labels}
