"""The workdir of a run that is told the view, on the scenes of `prepared_data.posed`: drawn weights, no training."""

from pathlib import Path

import jax
import numpy as np

from experiments import build, methods, runs
from soda_jax.training.checkpoints import Checkpoints
from soda_jax.training.state import create
from tests import prepared_data
from tests.small_config import get_config

POSED = {"data.name": "posed", "data.pair": "pose", "data.channels": 3, "model.rays": "moment"}
POSED |= {"data.image_size": 16, "data.source_size": 16}


def config(changes: dict | None = None):
    """The small config with cameras; `changes`: dotted keys and their values."""
    prepared_data.posed()
    prepared_data.single(1)
    c = get_config()
    with c.unlocked():
        c.update_from_flattened_dict(POSED | (changes or {}))
    return c


def write(workdir: Path, steps: tuple[int, ...] = (2,), changes: dict | None = None) -> Path:
    """config.json, and a checkpoint of these steps."""
    c = config(changes)
    workdir.mkdir(parents=True, exist_ok=True)
    runs.write_config(workdir, c, {}, runs.data_info(build.dataset(c)))
    spec = build.batch_spec(c)
    method, optimizer = methods.method(c, spec), build.optimizer(c)
    abstract = jax.eval_shape(lambda key: create(method, optimizer, key, spec), jax.random.key(0))
    state = jax.tree.map_with_path(drawn, abstract)
    with Checkpoints(workdir / "checkpoints", keep=3, metadata={}) as checkpoints:
        for step in steps:
            checkpoints.save(step, state, {})
    return workdir


def drawn(path, leaf) -> jax.Array:
    """Kernels that keep the size of what they see, norms as they begin, nothing else: no initialiser is compiled."""
    name, shape = getattr(path[-1], "key", ""), leaf.shape
    if name == "kernel":
        rng = np.random.default_rng(shape)
        return jax.device_put((rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(leaf.dtype))
    return jax.device_put(np.full(shape, name in ("scale", "var"), leaf.dtype))
