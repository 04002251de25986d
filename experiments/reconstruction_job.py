"""What a reconstruction is made of: which images, in how many steps, and the samplers that draw them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from data.sources import DataSet, Source
from data.views import Views
from experiments import build, networks
from experiments.pictures import split_of, stacked
from experiments.runs import Run, decisive, digest
from soda_jax.diffusion.inversion import ITERATIONS, exact, inner_times
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.diffusion.samplers import times
from soda_jax.evaluation import image_quality
from soda_jax.methods.soda import SODA

SHOWN = 6  # images in the picture
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is drawn again."""

    run: Run
    source: Source
    split: str
    cameras: int  # of a scene: image i is that of camera i % cameras, of scene i // cameras
    images: np.ndarray  # numbers of images, ascending
    steps: tuple[int, ...]
    seed: int

    @property
    def folder(self) -> Path:
        return self.run.workdir / "reconstruction" / str(self.run.step)

    @property
    def sampler(self) -> Sampler:
        return networks.sampler(self.run.config)

    def sampler_of(self, kind: str, steps: int) -> Sampler:
        """The steps are the grid's; a sampler must know of them for churn alone, and only then is another program."""
        sampler = self.sampler if kind == "stochastic" else exact(self.sampler)
        return dataclasses.replace(sampler, steps=steps) if sampler.churn else sampler

    def grid(self, kind: str, steps: int) -> Float[Array, " n"]:
        """The times of a walk, filled up to those of the longest, so that one program walks them all."""
        grid = (times if kind == "stochastic" else inner_times)(self.run.method.schedule, steps)
        return jnp.pad(grid, (0, max(self.steps) - steps))


def prepare(run: Run, steps: Sequence[int], images: int | None, seed: int) -> Job:
    """Raises ValueError for another method, flags that cannot be, and images that are too small for SSIM."""
    if not isinstance(run.method, SODA):
        raise ValueError(f"--mode=reconstruction draws with method='soda', found {run.config.method!r}")
    most, side = run.config.diffusion.steps - 1, run.config.data.image_size
    if min(steps) < 1 or (most > 0 and max(steps) > most):  # with T = 0 time is continuous
        limit = f"1 to diffusion.steps - 1 = {most}" if most > 0 else "1 or more"
        raise ValueError(f"--steps: expected numbers of {limit}, found {list(steps)}")
    if images is not None and images < 1:
        raise ValueError(f"--images must be 1 or more, found {images}")
    if side < image_quality.SMALLEST:
        raise ValueError(
            f"data.image_size={side}: SSIM needs images of {image_quality.SMALLEST} pixels a side or more"
        )
    dataset = build.dataset(run.config)
    split = split_of(dataset.splits)
    return Job(
        run=run,
        source=dataset.split(split),
        split=split,
        cameras=dataset.views,
        images=chosen(dataset, split, images, seed),
        steps=tuple(sorted(set(steps))),
        seed=seed,
    )


def chosen(dataset: DataSet, split: str, images: int | None, seed: int) -> np.ndarray:
    """All images of the split, or so many of them, ascending."""
    count = len(dataset.split(split)) * dataset.views
    if images is None or images >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, images, replace=False))


def settings_hash(job: Job) -> str:
    """Of all but the weights that a reconstruction depends on, the numbers of steps left out."""
    kept = decisive(job.run.config, ("data", "diffusion", "model", "samples"))
    for name in ("every_images", "count", "steps"):
        del kept["samples"][name]
    facts = [kept, job.run.data_info["manifest"], job.images.tolist(), job.seed, ITERATIONS]
    return digest(facts)


# Images ---------------------------------------------------------------------------------------------------


def views_of(job: Job, images: np.ndarray) -> Arrays:
    """These images as source and as target, their numbers, and where the denoiser is told it their one camera."""
    views: Views = build.views(job.run.config)
    scenes, which = np.unique(images // job.cameras, return_inverse=True)
    examples = job.source.read(scenes)
    pairs = zip(which, images % job.cameras, strict=True)
    made = [views.plain_pair(examples[scene], int(camera)) for scene, camera in pairs]
    return {**stacked(made), "image": images.astype(np.int32)}


def batches(job: Job, size: int) -> Iterator[Arrays]:
    """All of them, `size` at a time; the last batch is filled up with the last image."""
    for start in range(0, len(job.images), size):
        rows = np.minimum(np.arange(start, start + size), len(job.images) - 1)
        yield views_of(job, job.images[rows])


def first_images(job: Job) -> Arrays:
    """What the picture shows beside what is drawn."""
    return {"target": views_of(job, job.images[:SHOWN])["target"]}
