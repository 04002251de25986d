"""Images from nothing: z from a latent prior, decoded by the SODA run that it belongs to.

`experiments.sample --workdir=PRIOR --mode=unconditional` writes into PRIOR/unconditional/<step>:
    samples.png     decoded from z of the prior, and from z of a Gaussian with the mean and covariance of z
    nearest.png     the images of the prior that come nearest to a training image, beside it; likewise of test images
    results.json    distances from training images, beside those of z of real test images and of these themselves
Where the denoiser is told the view, the cameras are those of training examples drawn at random.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.sources import DataSet
from data.views import plain_view
from experiments import build, networks, runs
from experiments.drawing import Draw, draw
from experiments.pictures import along_rows, cameras_of_rows, choose, two_views
from experiments.priors import decoder_of
from experiments.probing import plain_stream, print_once, shown, write_json
from experiments.runs import Run, fingerprint
from experiments.spaces import space_of
from experiments.unconditional_page import page, save_nearest, save_samples
from soda_jax.evaluation import feature_spaces
from soda_jax.evaluation.feature_spaces import Space
from soda_jax.evaluation.features import Extractor, Table, pixels
from soda_jax.evaluation.memorisation import compared, nearest
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.preflight import check_alike
from soda_jax.parallel.sharding import put_rows, put_whole, replicated
from soda_jax.report import exhibit
from soda_jax.types import Tree

SETS = ("prior", "gaussian", "test")  # where z comes from
IMAGES = 1024  # of each kind, or all of the test split
BATCH = 64  # images at a time, when they are measured
OTHERS = 1  # seed of which images the kernel distance looks at: not that of the reference
SIDE = 32  # pixels a side in which images are compared, at most


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prior and its decoder, at their steps, and what is asked of them."""

    prior: Run
    decoder: Run
    variables: Mapping[str, Tree]  # "prior", "decoder"
    dataset: DataSet
    images: int
    train: int
    seed: int
    space: Space

    @property
    def count(self) -> int:
        """Images of each set: as many as are asked for and as there are test examples, equally many a process."""
        held = min(self.images, *(len(self.dataset.split(name)) for name in ("train", "test")))
        return held - held % processes.process_count()

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.prior.workdir / "unconditional" / str(self.prior.step)

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """All that the results depend on."""
        weights = {name: fingerprint(tree) for name, tree in self.variables.items()}
        samplers = {
            name: runs.plain(run.config)["samples"]
            for name, run in (("prior", self.prior), ("decoder", self.decoder))
        }
        asked = {"images": self.count, "train": self.train, "seed": self.seed, "space": self.space.name}
        return {"weights": weights, "samples": samplers, **asked, "data": self.dataset.manifest}


def run_mode(run: Run, arguments: argparse.Namespace) -> list[Path]:
    """`experiments.sample --mode=unconditional`."""
    job = prepare(run, arguments)
    check_alike({"step": str(run.step), "images": json.dumps(job.made_from, sort_keys=True)})
    path = job.folder / "results.json"
    paths = [path, *(job.folder / name for name in ("samples.png", "nearest.png"))]
    there = all(one.is_file() for one in (*paths, job.folder / exhibit.FILE))
    if there and json.loads(path.read_text())["made_from"] == job.made_from:
        print_once(f"the images of step {run.step} are there already")
        return paths
    make(job)
    return paths


def prepare(run: Run, arguments: argparse.Namespace) -> Job:
    """Raises ValueError or FileNotFoundError, naming the flag, for what cannot be made."""
    if run.config.method != "latent_prior":
        raise ValueError(
            f"--mode=unconditional needs a latent prior, found method={run.config.method!r} in "
            f"--workdir={run.workdir}: train one with --config=experiments/configs/latent_prior.py:{run.workdir}"
        )
    images = IMAGES if arguments.images is None else arguments.images
    for name, found, least in (("images", images, 2), ("train", arguments.train, 1)):
        if found < least:
            raise ValueError(f"--{name} must be {least} or more, found {found}")
    variables, dataset = run.ema_variables(), build.dataset(run.config)
    decoder, whole = decoder_of(run, variables, arguments.decoder)
    job = Job(
        prior=run,
        decoder=decoder,
        variables={"prior": variables, "decoder": whole},
        dataset=dataset,
        images=images,
        train=arguments.train,
        seed=arguments.seed,
        space=space_of(arguments.space),
    )
    if job.count < 2:
        raise ValueError(
            f"2 test examples or more are needed to compare with, found {job.count} for each process"
        )
    return job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own flags."""
    group = parser.add_argument_group("--mode=unconditional")
    group.add_argument("--train", type=int, default=20_000, help="training images to search (default: 20000)")
    group.add_argument("--space", default="random_resnet18", help="of distances, or run:DIR, or bundle:DIR")
    group.add_argument("--decoder", metavar="DIR", help="the SODA run, where it is no longer where it was")


def make(job: Job) -> None:
    """Samples, decodes, measures, writes."""
    views = build.views(job.decoder.config)
    real = {}
    for split in ("train", "test"):
        source = job.dataset.split(split)
        real[split] = two_views(source, choose(source, job.count, job.seed), views, job.seed)
    encode, paint = draw(job.decoder.config, job.decoder.method, job.variables["decoder"], job.seed)
    z = {**latents(job), "test": encode(real["test"]["source"]).reshape(job.count, -1)}
    images = decoded(job, z, real, paint)
    found = searched(job, z, images)
    results = measured(job, images, real, found)
    if processes.is_main():
        text = f"step {job.prior.step}, seed {job.seed}"
        save_samples(job.folder / "samples.png", images, text)
        training = partial(training_images, job, found["table"])
        save_nearest(job.folder / "nearest.png", images, found, training, text)
        exhibit.write(job.folder, page(results))
    write_json(job.folder / "results.json", results)


def latents(job: Job) -> dict[str, np.ndarray]:
    """z [count, n] of the prior, and of the Gaussian, from the same noise."""
    method, mesh = job.prior.method, make_mesh()
    sampler, key = networks.sampler(job.prior.config), jax.random.key(job.seed)

    def sample(variables: Tree, rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        noise = rows["noise"]
        return {
            "prior": method.generate(variables, noise, sampler, key),
            "gaussian": method.gaussian(variables, noise),
        }

    shape = (job.count, method.encoder.latent_dim)
    noise = np.random.default_rng([job.seed, 1]).normal(size=shape).astype(np.float32)
    program = jax.jit(sample, out_shardings=replicated(mesh))
    drawn = program(put_whole(job.variables["prior"], mesh), put_rows({"noise": noise}, mesh))
    return {name: np.asarray(z)[: job.count] for name, z in drawn.items()}


def decoded(job: Job, z: Mapping[str, np.ndarray], real: Mapping[str, Any], paint) -> dict[str, np.ndarray]:
    """uint8 [count, h, w, c] of every set; row by row they start from equal noise."""
    method, noise = job.decoder.method, np.arange(job.count)[:, None]

    def one(name: str) -> Draw:
        cameras = cameras_of_rows(real["test" if name == "test" else "train"])
        rows = z[name].reshape(job.count, 1, method.sections, method.section_dim)
        return Draw(z=rows, noise=noise, cameras=along_rows(cameras, 1))

    return {name: drawn[:, 0] for name, drawn in zip(SETS, paint([one(name) for name in SETS]), strict=True)}


# Measures ---------------------------------------------------------------------------------------------------


def measured(job: Job, images: Mapping, real: Mapping, found: Mapping) -> dict[str, Any]:
    """What is written to results.json."""
    sets = {**images, "test_images": real["test"]["target"]}
    reference = feature_spaces.measured(job.space, batches(real["train"]["target"]))
    apart = {
        name: feature_spaces.compared(reference, feature_spaces.measured(job.space, batches(x), OTHERS))
        for name, x in sets.items()
    }
    return {
        "step": job.prior.step,
        "decoder": {"workdir": str(job.decoder.workdir), "step": job.decoder.step},
        "images": job.count,
        "posed": job.decoder.method.rays is not None,
        "space": job.space.name,
        "frechet": {name: one["frechet"] for name, one in apart.items()},
        "kernel": {name: one["kernel"] for name, one in apart.items()},
        "cautions": sorted({text for one in apart.values() for text in one["cautions"]}),
        "nearest": {
            kind: {
                name: compared(sets[name].distance, sets["test"].distance) for name in ("prior", "gaussian")
            }
            for kind, sets in found.items()
            if kind != "table"
        },
        "train": len(found["table"]),
        "made_from": job.made_from,
    }


def batches(images: np.ndarray) -> list[np.ndarray]:
    """This process's rows."""
    own = images[processes.process_index() :: processes.process_count()]
    return [own[start : start + BATCH] for start in range(0, len(own), BATCH)]


def searched(job: Job, z: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The nearest training image of each image, by pixels and by standardised z: {space: {set: Nearest}}, "table"."""
    table, method = training_table(job), job.prior.method
    side = compared_side(job)
    flat, standardised = jax.jit(lambda x: pixels(x, side)), jax.jit(method.standardised)

    def standard(rows: np.ndarray) -> np.ndarray:
        return np.asarray(standardised(job.variables["prior"], rows))

    examples = standard(table.features["z"])
    by_pixels = {name: nearest(table.features["pixels"], np.asarray(flat(x))) for name, x in images.items()}
    return {
        "pixels": by_pixels,
        "z": {name: nearest(examples, standard(rows)) for name, rows in z.items()},
        "table": table,
    }


def compared_side(job: Job) -> int:
    """Images of source and of target are compared in this size."""
    c = job.decoder.config.data
    return min(SIDE, c.source_size, c.image_size)


def training_table(job: Job) -> Table:
    """z and pixels of the training images that are searched, plain."""
    side, method = compared_side(job), job.prior.method

    def encode(variables: Tree, images: jax.Array) -> dict[str, jax.Array]:
        return {"z": method.encode(variables, images)["z"], "pixels": pixels(images, side)}

    total = len(job.dataset.split("train")) * job.dataset.views
    rng = np.random.default_rng([job.seed, 2])
    chosen = np.sort(rng.choice(total, min(job.train, total), replace=False))
    batch = BATCH * processes.process_count()
    stream = plain_stream(job.dataset, "train", job.prior.config, batch, chosen)
    with stream:
        left = shown(stream, "train", -(-len(chosen) // batch), print_once)
        return Extractor(encode, ("z", "pixels"))(job.variables["prior"], left)


def training_images(job: Job, table: Table, rows: np.ndarray) -> np.ndarray:
    """Of these rows of the table, in the size that is drawn."""
    source, views, c = job.dataset.split("train"), job.dataset.views, job.decoder.config.data
    numbers = [int(n) for n in table.index[rows]]
    images = [source[n // views]["images"][n % views] for n in numbers]
    return np.stack([plain_view(image, c.image_size, c.channels) for image in images])
