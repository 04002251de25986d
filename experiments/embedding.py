"""The table of `experiments.embed`, and the parts that it grows by.

<out>.parts/00003.parquet   rows of one part, whole or not there, with the key of what they were made from
<out>                       all parts, once each of them is there

A part is used again where its key is that of the encoder and the images as they are now.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.image_files import ImageFiles
from data.sources import DataSet
from soda_jax.evaluation.features import Table

BATCHES = 16  # of a part
METADATA = "soda_jax"  # key of what a table says of itself, as JSON
PART_KEY = b"soda_jax_part"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images start .. stop - 1 of a split."""

    number: int
    split: str
    start: int
    stop: int
    key: str  # hash of the encoder, and of what is known of the images without reading them

    @property
    def rows(self) -> int:
        """How many images."""
        return self.stop - self.start

    def path(self, out: Path) -> Path:
        """Where it lies while the table grows."""
        return folder_of(out) / f"{self.number:05d}.parquet"

    def is_done(self, out: Path) -> bool:
        """Whether it is there, made from the same."""
        path = self.path(out)
        return path.is_file() and pq.read_schema(path).metadata.get(PART_KEY) == self.key.encode()


def folder_of(out: Path) -> Path:
    """Of the parts."""
    return out.with_name(f"{out.name}.parts")


def parts_of(dataset: DataSet, splits: Sequence[str], encoder: str, batch: int) -> list[Part]:
    """The parts of these splits, in order."""
    step, found = batch * BATCHES, []
    for split in splits:
        count = len(dataset.split(split)) * dataset.views
        for start in range(0, count, step):
            stop = min(start + step, count)
            key = hashlib.sha256(f"{encoder} {split} {start} {stop} ".encode())
            key.update(images_key(dataset, split, start, stop).encode())
            place = {"split": split, "start": start, "stop": stop}
            found.append(Part(number=len(found), **place, key=key.hexdigest()[:32]))
    return found


def images_key(dataset: DataSet, split: str, start: int, stop: int) -> str:
    """What tells these images from others."""
    source = dataset.split(split)
    return source.fingerprint(start, stop) if isinstance(source, ImageFiles) else dataset.manifest


def columns(dataset: DataSet, part: Part, table: Table) -> pa.Table:
    """id, labels and features of a part."""
    found = {"id": pa.array([row_id(dataset, part.split, int(i)) for i in table.index])}
    for name, labels in table.labels.items():
        found["label" if name == "label" else f"label_{name}"] = pa.array(labels)
    for name, x in table.features.items():
        flat = pa.array(np.ascontiguousarray(x, np.float32).ravel())
        found[name] = pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    return pa.table(found)


def row_id(dataset: DataSet, split: str, i: int) -> str:
    """File name, or split/number, or split/scene/view."""
    source = dataset.split(split)
    if isinstance(source, ImageFiles):
        return source.names[i]
    scene, view = divmod(i, dataset.views)
    return f"{split}/{scene}/{view}" if dataset.views > 1 else f"{split}/{scene}"


def write_part(out: Path, part: Part, table: pa.Table) -> None:
    """Whole or not at all."""
    path = part.path(out)
    path.parent.mkdir(exist_ok=True)
    trial = path.with_suffix(".trial")
    pq.write_table(table.replace_schema_metadata({PART_KEY: part.key}), trial)
    trial.replace(path)


def join_parts(out: Path, todo: Sequence[Part], metadata: Mapping[str, Any]) -> None:
    """The table, whole or not at all, a part in memory at a time; the parts are deleted then."""
    said = {key: json.dumps(value) for key, value in metadata.items()}
    schema = pq.read_schema(todo[0].path(out)).with_metadata(said)
    trial = out.with_name(f".{out.name}.trial")
    with pq.ParquetWriter(trial, schema) as writer:
        for part in todo:
            writer.write_table(pq.read_table(part.path(out)).replace_schema_metadata(said))
    trial.replace(out)
    shutil.rmtree(folder_of(out))
