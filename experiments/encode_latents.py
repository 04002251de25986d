"""Makes a data set of latents of another one: `python -m experiments.encode_latents --vae=PATH --data=NAME --name=NEW`.

PATH is diffusers' folder of SD's VAE (sd-vae-ft-mse), NAME a prepared data set of single images, in RGB. Each image is
scaled to --size; what is kept is a draw from its posterior, times the VAE's scale, as float16. Of a training image
there are --copies of them: the plain image, and others that were flipped by chance and cropped, out of --pad pixels of
black, at the size that they have in the data set (DDAE's DiT, arXiv 2303.09769, released code: ten copies; the pad is
`assumed`). Training draws one of them each time, with config.data.pair='same'; the probe reads the plain ones.

    --config.data.name=NEW --config.data.channels=4 --config.data.image_size=SIZE/8 --config.data.source_size=SIZE/8

Never more than a part of the images is in memory. Stop it whenever you like: the same command goes on where it was.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data import locations
from data.builders import store
from data.builders.latents import recipe, write_part
from data.pipeline import check_channels, evaluation_batches
from data.prepare import check_name
from data.sources import DataSet, open_data_set
from data.views import Views
from experiments import cluster, runs, xla_flags
from experiments.image_sets import THREADS
from experiments.probing import print_once
from soda_jax.evaluation.features import Rows
from soda_jax.methods.base import normal_like, to_float
from soda_jax.nn import autoencoder_weights
from soda_jax.nn.autoencoder_kl import AutoencoderKL
from soda_jax.parallel import processes
from soda_jax.types import Batch, Tree

PART = 256  # images
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images start .. stop - 1 of a split; `number` counts the parts of all splits."""

    number: int
    split: str
    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        """Where it is kept until the data set is whole."""
        return folder / f"{self.split}_{self.start:09d}.npz"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What there is to do."""

    arguments: argparse.Namespace
    dataset: DataSet
    vae: AutoencoderKL
    params: Tree
    place: Path  # of data sets

    @cached_property
    def about(self) -> dict[str, str]:
        """What the latents were made from."""
        a = self.arguments
        made_from = {"data": self.dataset.manifest, "vae": runs.fingerprint(self.params)}
        made_from |= {name: getattr(a, name) for name in ("size", "copies", "pad", "seed")}
        print_of_it = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        words = f"latents of {a.data} at {a.size} x {a.size} pixels, by {a.vae}, times {self.vae.scale}"
        return {"source": f"{a.data} and {a.vae}", "fingerprint": print_of_it, "words": words}

    @property
    def folder(self) -> Path:
        """Of the parts; another one where they are made from something else."""
        return self.place / f".latents-{self.arguments.name}-{self.about['fingerprint']}"

    @property
    def native(self) -> int:
        """Side of the images as the data set has them, at most --size."""
        return min(*self.dataset.image_shape[:2], self.arguments.size)

    def parts(self) -> list[Part]:
        """All of them, in order."""
        found: list[Part] = []
        for split in (split for split in SPLITS if split in self.dataset.splits):
            count = len(self.dataset.split(split))
            for start in range(0, count, PART):
                stop = min(start + PART, count)
                found.append(Part(number=len(found), split=split, start=start, stop=stop))
        return found

    def recipe(self, parts: Sequence[Part]) -> Any:
        """Of the data set."""
        paths = {part.split: [] for part in parts}
        for part in parts:
            paths[part.split].append(part.path(self.folder))
        side = self.arguments.size // self.vae.factor
        return recipe(self.arguments.name, self.dataset, paths, side, self.about)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when the whole data set is there."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()
    place = locations.resolve(arguments.data_dir).absolute()
    return cluster.carry_out(
        "experiments.encode_latents",
        arguments,
        place,
        lambda: encode(arguments, place),
        if_stopped="goes on",
    )


def encode(arguments: argparse.Namespace, place: Path) -> None:
    """Makes what is missing. Raises ValueError, OSError or DataError for what does not fit."""
    job = opened(arguments, place)
    parts = job.parts()
    made = job.recipe(parts)
    if store.is_prepared(made, place):
        print_once(f"already prepared: {store.folder_of(made, place)}")
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    left = [part for part in parts if not part.path(job.folder).exists()]
    images = sum(part.stop - part.start for part in parts)
    done = images - sum(part.stop - part.start for part in left)
    rows, variables = Rows(program(job.vae, arguments)), job.params
    for part in left:
        write(job, part, rows, variables)
        done += part.stop - part.start
        print_once(f"{done:,}/{images:,} images")
    folder = store.write(made, place)
    shutil.rmtree(job.folder)
    print_once(f"prepared {arguments.name}: {folder}")


def opened(arguments: argparse.Namespace, place: Path) -> Job:
    """The data set and the network, once the arguments are right."""
    check(arguments)
    dataset = open_data_set(arguments.data, arguments.data_dir)
    check_channels(dataset, 3)
    if dataset.views > 1:
        raise ValueError(f"--data={arguments.data} has {dataset.views} images in an example, expected one")
    vae, params = autoencoder_weights.read(arguments.vae)
    if arguments.size % vae.factor:
        raise ValueError(f"--size={arguments.size}: expected a multiple of {vae.factor}")
    if (vae.encoder.image_channels, vae.encoder.latent_channels) != (3, 4):
        raise ValueError(f"--vae={arguments.vae}: expected one of RGB images and 4 channels of latents")
    return Job(arguments=arguments, dataset=dataset, vae=vae, params=params, place=place)


def check(arguments: argparse.Namespace) -> None:
    """ValueError or DataError for what is wrong with a flag."""
    check_name(arguments.name)
    if processes.process_count() > 1:
        raise ValueError("latents are made by one process, found several: start one")
    for flag, least in (("size", 1), ("copies", 1), ("batch", 1), ("pad", 0), ("seed", 0)):
        if getattr(arguments, flag) < least:
            raise ValueError(f"--{flag}={getattr(arguments, flag)}: expected {least} or more")


def write(job: Job, part: Part, rows: Rows, params: Tree) -> None:
    """The latents of a part, all of its copies."""
    copies = job.arguments.copies if part.split == "train" else 1
    found = []
    for copy in range(copies):
        told = {"vae": params, "draw": np.int32([SPLITS.index(part.split), copy])}
        found.append(rows.whole(told, batches(job, part, copy)))
    latents = np.stack([one["latents"] for one in found], 1)
    write_part(part.path(job.folder), latents, found[0]["index"], found[0]["labels"])


def batches(job: Job, part: Part, copy: int) -> Iterator[Batch]:
    """Its images; copy 0: as they are, others: augmented, each from numbers of its own."""
    a, side = job.arguments, job.native
    views = Views(image_size=side, source_size=side, crop_prob=1.0, crop_pad=a.pad, randaugment_prob=0.0)
    stream = evaluation_batches(
        job.dataset,
        part.split,
        batch=a.batch,
        image_size=side,
        channels=3,
        augment=views if copy else None,
        seed=(a.seed + part.number * a.copies + copy) % 2**32,
        indices=np.arange(part.start, part.stop),
        threads=THREADS,
    )
    with stream:
        yield from stream


def program(vae: AutoencoderKL, arguments: argparse.Namespace) -> Any:
    """(variables, batch) -> draws of the posterior, and what is known of their images."""
    size = arguments.size

    def draw(variables: Tree, batch: Batch) -> Batch:
        images = to_float(batch["image"])
        images = jax.image.resize(images, (len(images), size, size, 3), "linear")
        key = jax.random.fold_in(jax.random.key(arguments.seed), variables["draw"][0])
        key = jax.random.fold_in(key, variables["draw"][1])
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        side = size // vae.factor
        eps = normal_like(keys, jnp.zeros((len(images), side, side, vae.encoder.latent_channels)))
        z = vae.encode(variables["vae"], images, eps).astype(jnp.float16)
        return {"latents": z, **{name: batch[name] for name in ("index", "labels", "valid")}}

    return draw


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.encode_latents",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vae", required=True, metavar="PATH", help="diffusers' folder of SD's VAE")
    parser.add_argument("--data", required=True, metavar="NAME", help="a prepared data set of images")
    parser.add_argument("--name", required=True, metavar="NEW", help="of the data set of latents")
    parser.add_argument("--size", type=int, default=256, help="side that images are scaled to (256)")
    parser.add_argument("--copies", type=int, default=10, help="of each training image, 1: as it is (10)")
    parser.add_argument("--pad", type=int, default=4, help="pixels that copies are moved by at most (4)")
    parser.add_argument("--batch", type=int, default=16, help="images at a time (16)")
    parser.add_argument("--seed", type=int, default=0, help="of crops, flips and draws (0)")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="where data sets lie")
    cluster.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
