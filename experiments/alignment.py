"""Alignment and uniformity of a run's features over training: `python -m experiments.alignment --workdir=DIR`.

Of a DDAE: every decoder block (of a DiT every block) at ddae.level, the two views being two draws of noise on the same
plain training image.
Of any other method: z and pooled, the views being two draws of the run's own augmentation, or two cameras of a scene.
Measures each checkpoint that is there (soda_jax/evaluation/alignment.py has the equations; smaller is better). One that
was measured is not measured again, and what was measured of checkpoints that have since been deleted stays. Writes

    DIR/alignment/results.json    {"settings", "steps": [{"step", "images", "features": {name: {"align", "uniform"}}}]}
    DIR/alignment/training/       alignment.svg and the section of the run's page

--steps=all        or numbers of checkpoints: --steps=1000,2000
--images=N         of the training split, drawn once (default: 0, all)
--batch=512        whose pairs uniformity looks at (paper: 128 on each of 4 devices)
--level=N          of a DDAE, another noise level than ddae.level
--seed=0           of the images, of noise and of views
"""

import argparse
import functools
import json
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.sources import DataSet
from data.views import SINGLE, UNTOUCHED
from experiments import alignment_exhibit, build, cluster, runs, xla_flags
from experiments.probing import plain_stream, print_once, shown, write_json
from experiments.runs import Run, open_run
from soda_jax.evaluation.alignment import Meter
from soda_jax.methods.base import stream
from soda_jax.methods.ddae import DDAE
from soda_jax.parallel.preflight import check_alike
from soda_jax.types import Batch, Features, Tree

Found = dict[str, Any]
LARGEST = 2**32  # of seeds


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run, and what of it is measured."""

    run: Run
    dataset: DataSet
    images: np.ndarray  # numbers of training images, in the order in which batches take them
    batch: int
    seed: int

    @property
    def noisy(self) -> bool:
        """Whether views differ by noise alone."""
        return isinstance(self.run.method, DDAE)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        if not self.noisy:
            return ("z", "pooled")
        kind, _, last = self.run.method.denoiser.last_map.rpartition("_")
        return tuple(f"{kind}_{number}" for number in range(1, int(last) + 1))

    @functools.cached_property
    def meter(self) -> Meter:
        """Compiled once, whatever the variables."""
        return Meter(self.noises if self.noisy else self.views, self.names)

    def noises(self, variables: Tree, batch: Batch) -> tuple[Features, Features]:
        """Features of every block under two draws of noise, which belong to the number of an image."""
        method, root = self.run.method, jax.random.key(self.seed)
        keys = jax.vmap(lambda index: jax.random.fold_in(root, index))(batch["index"])
        t = jnp.full(len(batch["index"]), method.level / method.levels)
        return tuple(method.pooled(variables, batch["image"], t, stream(keys, view)) for view in range(2))

    def views(self, variables: Tree, batch: Batch) -> tuple[Features, Features]:
        """Features of both views."""
        return tuple(self.run.method.encode(variables, batch[view]) for view in ("image", "other"))

    @property
    def settings(self) -> Found:
        """All that the results depend on beside the weights, plain."""
        own = ("ddae", "diffusion") if self.noisy else ()
        kept = runs.decisive(self.run.config, ("method", "model", "data", *own))
        method = self.run.method
        place = {"level": method.level} if self.noisy else {"pair": self.run.config.data.pair}
        told = {"images": len(self.images), "batch": self.batch, "seed": self.seed, **place}
        return {**told, "config": runs.digest([kept, self.dataset.manifest])}

    @property
    def path(self) -> Path:
        """Of the results."""
        return self.run.workdir / "alignment" / "results.json"


def prepare(arguments: argparse.Namespace) -> Job:
    """Raises ValueError, naming the flag, for what cannot be measured."""
    overrides = {} if arguments.level is None else {"ddae.level": arguments.level}
    overrides |= {"data.dir": arguments.data_dir} if arguments.data_dir else {}
    run = open_run(arguments.workdir, overrides=overrides)
    noisy = isinstance(run.method, DDAE)
    if arguments.level is not None and not noisy:
        raise ValueError(f"--level is for runs of config.method='ddae', found {run.config.method!r}")
    if not noisy and run.config.data.pair == "same":
        raise ValueError(
            "data.pair='same': both views are one image, so they always agree: nothing to measure"
        )
    for name, least in (("images", 0), ("batch", 2), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be {least} or more, found {getattr(arguments, name)}")
    dataset = build.dataset(run.config)
    count = len(dataset.split("train")) * dataset.views
    images = np.random.default_rng(arguments.seed).permutation(count)[: arguments.images or count]
    return Job(run=run, dataset=dataset, images=images, batch=arguments.batch, seed=arguments.seed)


def batches(job: Job) -> Iterator[Batch]:
    """ "image", its "index", and, but for noise, "other", the second view of it."""
    c = job.run.config
    pieces = math.ceil(len(job.images) / job.batch)
    if job.noisy:
        with plain_stream(job.dataset, "train", c, job.batch, job.images) as images:
            yield from shown(images, "two draws of noise", pieces, print_once)
        return
    views = None if c.data.pair in UNTOUCHED else build.views(c)
    chosen = (job.images, partners(job))
    first, second = (
        plain_stream(
            job.dataset, "train", c, job.batch, numbers, augment=views, seed=(job.seed + i) % LARGEST
        )
        for i, numbers in enumerate(chosen)
    )
    with first, second:
        for one, other in shown(zip(first, second, strict=True), "two views", pieces, print_once):
            yield {**one, "other": other["image"]}


def partners(job: Job) -> np.ndarray:
    """Of each image, the number of that which its other view is made of."""
    if job.run.config.data.pair in SINGLE:
        return job.images
    cameras = job.dataset.views
    scenes, places = np.divmod(job.images, cameras)
    moved = np.random.default_rng([job.seed, 1]).integers(1, cameras, len(places))
    return scenes * cameras + (places + moved) % cameras


# Checkpoint by checkpoint -----------------------------------------------------------------------------------


def measure(job: Job, steps: Sequence[int] | None) -> Found:
    """The results, with these steps (None: all that are there) among them.

    Raises ValueError where there is none, FileNotFoundError for one that is not there and was never measured.
    """
    rows, present = kept(job), job.run.steps()
    wanted = sorted(present if steps is None else steps)
    if not wanted and not rows:
        raise ValueError(f"{job.run.checkpoints} has no checkpoint yet: train first")
    if missing := [step for step in wanted if step not in present and step not in rows]:
        raise FileNotFoundError(
            f"--steps={missing[0]}: {job.run.checkpoints} has {present or 'no checkpoint yet'}"
        )
    check_alike({"steps": str(wanted), "settings": json.dumps(job.settings)})
    for step in (step for step in wanted if step in present):
        rows[step] = measured(job, step, rows.get(step, {}))
        write_json(job.path, result(job, rows))
    return result(job, rows)


def measured(job: Job, step: int, found: Found) -> Found:
    """The row of a step: the one that was found, if it is of the same weights."""
    variables = job.run.encoder_variables(step)
    weights = runs.fingerprint(variables)
    if found.get("weights") == weights:
        print_once(f"step {step} is measured already")
        return found
    print_once(f"measuring step {step}")
    features = {name: asdict(row) for name, row in job.meter(variables, batches(job)).items()}
    return {
        "step": step,
        "images": step * job.run.config.train.batch,
        "features": features,
        "weights": weights,
    }


def kept(job: Job) -> dict[int, Found]:
    """Rows that are there, by step. ValueError where they were measured otherwise, and would not compare."""
    if not job.path.is_file():
        return {}
    found = json.loads(job.path.read_text())
    apart = [key for key, value in job.settings.items() if found["settings"].get(key) != value]
    if apart:
        before, now = ({key: side.get(key) for key in apart} for side in (found["settings"], job.settings))
        raise ValueError(
            f"{job.path} was measured with other settings ({before}, asked for: {now}), and would not compare: ask for "
            "the same, or move it away"
        )
    return {row["step"]: row for row in found["steps"]}


def result(job: Job, rows: Mapping[int, Found]) -> Found:
    """What is written."""
    return {"settings": job.settings, "steps": [rows[step] for step in sorted(rows)]}


# The command line -------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when all that was asked for is there."""
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(given)
    xla_flags.set_up()

    def work() -> None:
        job = prepare(arguments)
        found = measure(job, arguments.steps)
        command = shlex.join(["python", "-m", "experiments.alignment", *given])
        alignment_exhibit.leave(job.path.parent / "training", found, command)
        print_once(f"{alignment_exhibit.text(found)}\n{job.path}")

    return cluster.carry_out(
        "experiments.alignment", arguments, arguments.workdir, work, if_stopped="measures what is missing"
    )


def steps_of(words: str) -> list[int] | None:
    """ "all" as None, "1000,2000" as numbers."""
    return None if words == "all" else [int(word) for word in words.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.alignment",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--steps", type=steps_of, metavar="all|N,N", help="checkpoints (default: all)")
    parser.add_argument("--images", type=int, default=0, help="of the training split (default: 0, all)")
    parser.add_argument(
        "--batch", type=int, default=512, help="images whose pairs are looked at (default: 512)"
    )
    parser.add_argument("--level", type=int, help="noise level of a DDAE (default: ddae.level)")
    parser.add_argument("--seed", type=int, default=0, help="of images, noise and views (default: 0)")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="where data sets lie")
    cluster.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
