"""What training does now and then: pictures, and a look at the latent."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data.pipeline import training_batches
from data.sources import DataSet
from experiments import build, networks
from experiments.drawing import class_titles, numbered_noise, source_columns
from experiments.job import Job
from experiments.pictures import unguided_words
from experiments.xla_flags import jit_seldom
from soda_jax.methods.base import LatentMethod, to_uint8
from soda_jax.parallel.processes import is_main
from soda_jax.parallel.sharding import gather, put_rows, replicated
from soda_jax.report.figures import save_grid
from soda_jax.training.latent_monitor import monitor, warning
from soda_jax.training.loop import Hook
from soda_jax.training.state import TrainState, ema_variables
from soda_jax.types import Batch

MONITOR, SAMPLES = 2**32 - 2, 2**32 - 3  # streams of the root key, beside the steps


def hooks(job: Job, say: Callable[[str], None]) -> tuple[Hook, ...]:
    """Those that the config asks for."""
    c, wanted = job.config, []
    if c.monitor.every_images:
        wanted.append(Hook(every_images=c.monitor.every_images, run=monitoring(job, say)))
    if c.samples.every_images:
        wanted.append(Hook(every_images=c.samples.every_images, run=sampling(job)))
    return tuple(wanted)


def monitoring(job: Job, say: Callable[[str], None]) -> Callable[[TrainState, int], dict[str, Any]]:
    """Measures the latent of the averaged variables on the same test images every time; warns in words."""
    size, parts = monitor_size(job)
    if size != job.config.monitor.batch:
        say(
            f"latent monitor: {size} images for monitor.batch={job.config.monitor.batch}, to share them evenly"
        )
    batch = put_rows(fixed_batch(job.config, job.dataset, size), job.mesh)

    @jit_seldom
    def measure(variables, batch):
        keys = jax.random.split(stream(job.config, MONITOR), size)
        return monitor(job.method, gather(variables, ema_variables(job.shardings)), batch, keys, parts)

    def run(state: TrainState, step: int) -> dict[str, Any]:
        values = jax.device_get(measure(ema_variables(state), batch))
        values = {name: value.item() for name, value in values.items()}
        complaint = warning(values)
        if complaint:
            say(f"warning (latent monitor, step {step}): {complaint}")
        return {"monitor/step": step} | {f"monitor/{name}": value for name, value in values.items()}

    return run


def monitor_size(job: Job) -> tuple[int, int]:
    """(images, parts): monitor.batch or a little more, on a device no more at a time than in a microbatch."""
    devices = job.mesh.size
    at_a_time = job.lengths.batch // (job.accumulation * devices)
    local = math.ceil(job.config.monitor.batch / devices)
    parts = math.ceil(local / at_a_time)
    return devices * parts * math.ceil(local / parts), parts


def sampling(job: Job) -> Callable[[TrainState, int], None]:
    """Writes source | target | generated of the same test images every time; of a net without latent, `unguided`."""
    c = job.config.samples
    if not isinstance(job.method, LatentMethod):
        return unguided(job)
    host = fixed_batch(job.config, job.dataset, c.count)
    batch, draw = put_rows(host, job.mesh), generator(job, host["target"].shape[1:])

    def run(state: TrainState, step: int) -> None:
        images = jax.device_get(draw(ema_variables(state), batch))[: c.count]
        if is_main():
            columns = [*source_columns(host["source"]), ("target", host["target"]), ("generated", images)]
            text = f"step {step}: test images, {c.sampler} in {c.steps} steps, guidance {c.guidance}"
            save_grid(job.workdir / "samples" / f"step_{step:08d}.png", columns, description=text)

    return run


def unguided(job: Job) -> Callable[[TrainState, int], None]:
    """Writes samples.count squared images from nothing, of the same noise every time.

    Of a net that knows classes each row is of one of them: as many as there are rows, from the first to the last.
    """
    c, method, sampler = job.config.samples, job.method, networks.sampler(job.config)
    key, places = stream(job.config, SAMPLES), np.arange(c.count**2).reshape(c.count, c.count)
    guidance = networks.class_guidance(job.config, method.class_count)
    titles, host = [], {"noise": places.ravel()}
    if method.class_count:
        classes = np.arange(c.count) * method.class_count // c.count
        host["classes"] = np.repeat(classes, c.count)
        titles = class_titles(job.dataset.label_names, classes.tolist())
    rows = put_rows({name: filled(numbers, job.mesh.size) for name, numbers in host.items()}, job.mesh)
    shape = job.spec["target"].shape[1:]

    @partial(jax.jit, out_shardings=replicated(job.mesh))
    def draw(variables, rows: Batch):
        variables = gather(variables, ema_variables(job.shardings))
        noise, told = numbered_noise(key, rows["noise"], shape), rows.get("classes")
        return to_uint8(method.generate(variables, noise, sampler, key, classes=told, guidance=guidance))

    def run(state: TrainState, step: int) -> None:
        images = jax.device_get(draw(ema_variables(state), rows))[places]
        if is_main():
            columns = [("", column) for column in images.swapaxes(0, 1)]
            text = f"step {step}: {unguided_words(c, method.class_count)}"
            path = job.workdir / "samples" / f"step_{step:08d}.png"
            save_grid(path, columns, row_titles=titles, description=text)

    return run


def filled(numbers: np.ndarray, devices: int) -> np.ndarray:
    """As many as the devices divide; the last again to fill up."""
    return np.pad(numbers, (0, -len(numbers) % devices), mode="edge")


def generator(job: Job, shape: tuple[int, ...]) -> Callable:
    """(variables, batch) -> uint8 images of the sources' latents, whole on every device."""
    method, sampler, key = job.method, networks.sampler(job.config), stream(job.config, SAMPLES)
    guidance = networks.guidance(job.config)

    def generate(variables, batch: Batch):
        variables = gather(variables, ema_variables(job.shardings))
        told = method.condition(variables, batch["source"], batch)
        rest = {"guidance": guidance, "cameras": batch} | told.beside()
        return to_uint8(method.generate(variables, told.z, sampler, key, shape, **rest))

    return jax.jit(generate, out_shardings=replicated(job.mesh))


def fixed_batch(config: ConfigDict, dataset: DataSet, count: int) -> Batch:
    """Two views of some test images (of training images where there is no test split), always the same."""
    which = "test" if "test" in dataset.splits else "train"
    views, held_out = build.views(config), {"train": dataset.split(which)}
    dataset = dataclasses.replace(dataset, splits=held_out)
    with training_batches(dataset, views, batch=count, seed=config.seed, threads=0, prefetch=0) as batches:
        return next(batches)


def stream(config: ConfigDict, number: int) -> jax.Array:
    """A key that no training step uses."""
    return jax.random.fold_in(jax.random.key(config.seed), number)
