"""Features of a folder of images or of a data set, by an exported encoder:

    python -m experiments.embed --bundle=BUNDLE --source=FOLDER|tfds:NAME --out=x.parquet

FOLDER: every image below it. tfds:NAME: a prepared data set, its splits "train" and "test" (--split: one of them).
The table has a row an image: `id` (file name below FOLDER, or split/number, or split/scene/view), one column for each
label of a data set, and one for each feature, a list of float32. Its metadata hold the encoder's hash.

Stop it whenever you like: the same command goes on where it was. Images are shared out to all devices.

--data_dir=DIR   where data sets lie (default: as config.data.dir)
--batch=256      images at a time, on all devices together
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.pipeline import evaluation_batches
from data.sources import DataSet
from data.zoom import zoomed
from experiments import cluster, xla_flags
from experiments.embedding import METADATA, Part, columns, join_parts, parts_of, write_part
from experiments.image_sets import TFDS, THREADS, check_ahead, opened
from experiments.probing import print_once
from soda_jax.evaluation.features import Extractor
from soda_jax.export import bundle
from soda_jax.export.encoders import Encoder, encode
from soda_jax.parallel import processes
from soda_jax.parallel.preflight import check_alike
from soda_jax.types import Batch, Bytes, Features, Tree


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when the whole table is there."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()
    folder = Path(arguments.out).parent
    return cluster.carry_out(
        "experiments.embed", arguments, folder, lambda: embed(arguments), if_stopped="goes on"
    )


def embed(arguments: argparse.Namespace) -> None:
    """Makes what is missing of the table.

    Raises:
      bundle.BundleError: the bundle is damaged or too new.
      DataError: the source cannot be read; what was done so far is kept.
      ValueError: the arguments do not fit, or --out is there and is another table.
    """
    folder, out = Path(arguments.bundle), Path(arguments.out)
    check_arguments(arguments)
    encoder, config = bundle.load(folder), bundle.opened(folder)
    dataset, splits = source(arguments, encoder, config.get("training_config", {}).get("data", {}))
    todo = parts_of(dataset, splits, config["encoder_sha256"], arguments.batch)
    about = description(config, arguments.source, todo)
    check_alike({"what is embedded": json.dumps(about)})
    if is_there(out, about):
        print_once(f"the table is there already: {out}")
        return
    made = missing(out, todo)
    check_alike({"parts that are done already": str([part.number for part in todo if part not in made])})
    make(encoder, dataset, made, todo, out, arguments.batch)
    if processes.is_main():
        join_parts(out, todo, {METADATA: about})
    processes.any_process(False)  # whoever looks for it next, in whichever process, finds it
    rows = sum(part.rows for part in todo)
    print_once(f"wrote {out}: {rows:,} images, {', '.join(config['features'])}")


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what would fail after hours."""
    check_ahead(arguments.out, ".parquet", arguments.batch)
    if arguments.split and not arguments.source.startswith(TFDS):
        raise ValueError("--split is for tfds:NAME: a folder has no splits")


def source(
    arguments: argparse.Namespace, encoder: Encoder, trained: Mapping[str, Any]
) -> tuple[DataSet, list[str]]:
    """What --source names, as near as the encoder's training (its config.data) had it, and its splits.

    Raises DataError, or ValueError where its images do not fit.
    """
    height, width, channels = encoder.image_shape
    if height != width:
        raise ValueError(f"the encoder takes {height} x {width} images: only square ones are read here yet")
    name = f"{arguments.source}:{arguments.split}" if arguments.split else arguments.source
    dataset, splits = opened(name, arguments.data_dir, channels)
    return zoomed(dataset, trained.get("zoom", 1.0)), splits


def description(config: Mapping[str, Any], name: str, todo: Sequence[Part]) -> dict[str, Any]:
    """What the table says of itself."""
    about = {key: config.get(key) for key in ("encoder_sha256", "method", "step", "features")}
    return {**about, "source": name, "rows": [part.key for part in todo]}


def is_there(out: Path, about: Mapping[str, Any]) -> bool:
    """Whether this very table is there. ValueError where another one is."""
    import pyarrow.parquet as pq

    if not out.exists():
        return False
    metadata = pq.read_schema(out).metadata or {}
    if json.loads(metadata.get(METADATA.encode(), b"{}")) == about:
        return True
    raise ValueError(
        f"{out} is there already, of another encoder or source: give another --out, or delete it"
    )


def missing(out: Path, todo: Sequence[Part]) -> list[Part]:
    """The parts that are not there yet; says how many are."""
    found = [part for part in todo if not part.is_done(out)]
    done = sum(part.rows for part in todo) - sum(part.rows for part in found)
    if done:
        print_once(f"{done:,} images are done already")
    return found


def make(
    encoder: Encoder, dataset: DataSet, made: Sequence[Part], todo: Sequence[Part], out: Path, batch: int
) -> None:
    """Writes these parts, one after the other, and shows how far it is."""

    def program(variables: Tree, images: Bytes) -> Features:
        return encode(encoder.module, encoder.features, variables, images)

    extractor, started = Extractor(program, encoder.features), time.monotonic()
    total, left = sum(part.rows for part in todo), sum(part.rows for part in made)
    hidden = None if processes.is_main() else True
    with tqdm(total=total, initial=total - left, unit=" images", disable=hidden) as bar:
        for part in made:
            watched = counted(batches(dataset, part, encoder, batch), bar)
            table = extractor(encoder.variables, watched, dataset.views)
            if processes.is_main():
                write_part(out, part, columns(dataset, part, table))
            processes.any_process(False)
            if bar.disable:
                done = sum(p.rows for p in made if p.number <= part.number)
                print_once(line(total, left, done, time.monotonic() - started))


def counted(stream: Iterator[Batch], bar: tqdm) -> Iterator[Batch]:
    """The batches as they are; the bar advances by their images, also where it is not shown."""
    for batch in stream:
        yield batch
        done = int(np.sum(batch["valid"])) * processes.process_count()
        bar.update(done)


def line(total: int, left: int, done: int, seconds: float) -> str:
    """done: of the `left` that there were when this began. 8,192/70,000 images, 950 images/s, 01:05 left"""
    rate = done / max(seconds, 1e-9)
    clock = tqdm.format_interval((left - done) / rate)
    return f"{total - left + done:,}/{total:,} images, {rate:,.0f} images/s, {clock} left"


def batches(dataset: DataSet, part: Part, encoder: Encoder, batch: int) -> Iterator[Batch]:
    """The images of a part, this process's rows of each batch."""
    stream = evaluation_batches(
        dataset,
        part.split,
        batch=batch,
        image_size=encoder.image_shape[0],
        channels=encoder.image_shape[2],
        indices=np.arange(part.start, part.stop),
        process_index=processes.process_index(),
        process_count=processes.process_count(),
        threads=THREADS,
    )
    with stream:
        yield from stream


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.embed",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", required=True, metavar="DIR", help="what experiments.export wrote")
    parser.add_argument("--source", required=True, metavar="FOLDER|tfds:NAME", help="the images")
    parser.add_argument("--out", required=True, metavar="FILE", help="the table, x.parquet")
    parser.add_argument("--split", choices=("train", "test"), help="of tfds:NAME (default: both)")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="where data sets lie")
    parser.add_argument("--batch", type=int, default=256, help="images at a time (default: 256)")
    cluster.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
