"""A workdir as training leaves it, without training: a small SODA, its config and its checkpoints.

The data set has scenes of 4 cameras; hue and brightness can be read off the mean colour.
"""

import functools
from pathlib import Path

import jax
import numpy as np
import tensorflow_datasets as tfds

from experiments import build, methods, runs
from experiments.configs import default
from soda_jax.training.checkpoints import Checkpoints
from soda_jax.training.state import create
from tests import prepared_data as prepared

SIDE, CAMERAS, HUES = 16, 4, 3
TRAIN, TEST = 24, 10  # scenes
STEPS = (2, 4)  # of the checkpoints; the last one ends the training
PROGRESS = {"sums": {}, "count": 0, "extra": {}, "seconds": 2.5}  # of training, at each of them


def _scene(key: int) -> dict:
    rng, hue, bright = np.random.default_rng(key), key % HUES, key // HUES % 2
    images = rng.integers(0, 80 + 60 * bright, (CAMERAS, SIDE, SIDE, 3)).astype(np.uint8)
    images[..., hue] += 100
    return {"images": [prepared.png(image) for image in images], "hue": hue, "bright": bright}


@functools.cache
def dataset(name: str = "hues", labelled: bool = True) -> str:
    """Prepares the data set once a test run; returns its name."""
    features = {
        "images": tfds.features.Sequence(tfds.features.Image(shape=(SIDE, SIDE, 3)), length=CAMERAS),
        "hue": tfds.features.ClassLabel(num_classes=HUES) if labelled else np.int64,
        "bright": tfds.features.ClassLabel(num_classes=2) if labelled else np.int64,
    }
    rows = {"train": [_scene(k) for k in range(TRAIN)], "test": [_scene(k) for k in range(100, 100 + TEST)]}
    prepared.prepare(name, features, rows)
    return name


def config(name: str = "hues"):
    """The default, tiny."""
    c = default.get_config()
    c.compilation_cache = ""
    c.data.update(name=name, dir=str(prepared.data_dir()), image_size=SIDE, source_size=SIDE, threads=0)
    c.model.update(encoder_width=8, channels=8, multipliers=(1,), attention=(False,), blocks=1, groups=4)
    c.model.update(latent_dim=6, stem="strided")
    c.train.update(images=STEPS[-1] * 8, batch=8)
    c.probe.update(learning_rates=(1e-2,), weight_decays=(1e-4, 1e-2), images=2000, holdout=0.25, knn_k=5)
    c.probe.batch = 12
    return c


@functools.cache
def initial_state():
    """The state before the first step, which no data set changes."""
    c = config()
    spec = build.batch_spec(c)
    method, optimizer = methods.method(c, spec), build.optimizer(c)
    return jax.jit(lambda key: create(method, optimizer, key, spec))(build.init_key(c))


def write(workdir: Path, steps: tuple[int, ...] = STEPS, name: str = "hues", labelled: bool = True) -> Path:
    """config.json and one checkpoint a step, whose EMA parameters differ."""
    c = config(dataset(name, labelled))
    workdir.mkdir(parents=True, exist_ok=True)
    runs.write_config(workdir, c, {}, runs.data_info(build.dataset(c)))
    state = initial_state()
    with Checkpoints(workdir / "checkpoints", keep=3, metadata={}) as checkpoints:
        for step in steps:
            moved = jax.tree.map(lambda x, step=step: x * (1 + 0.1 * step), state.ema_params)
            checkpoints.save(step, state.replace(step=state.step + step, ema_params=moved), PROGRESS)
    return workdir


def write_ddae(workdir: Path, model: dict | None = None, **samples) -> Path:
    """The same of a DDAE that was not trained, at step 4; of keys of config.model and of config.samples."""
    c = config(dataset())
    c.method = "ddae"
    c.model.update(channels=8, multipliers=(1, 2), attention=(False, False), patch=2)
    c.model.update(model or {})
    c.diffusion.schedule = "linear"
    c.ddae.update(tap="block_1" if c.model.denoiser == "dit" else "out_2", level=11)
    c.samples.update(samples)
    c.monitor.every_images = 0
    spec = build.batch_spec(c)
    method, optimizer = methods.method(c, spec), build.optimizer(c)
    state = jax.jit(lambda key: create(method, optimizer, key, spec))(build.init_key(c))
    workdir.mkdir(parents=True, exist_ok=True)
    runs.write_config(workdir, c, {}, runs.data_info(build.dataset(c)))
    with Checkpoints(workdir / "checkpoints", keep=1, metadata={}) as checkpoints:
        checkpoints.save(4, state, PROGRESS)
    return workdir
