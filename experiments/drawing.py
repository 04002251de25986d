"""Encodes and draws in equal batches over the local devices, with progress shown."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments import networks
from soda_jax.methods.base import to_uint8
from soda_jax.methods.masking import Condition
from soda_jax.methods.soda import SODA
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.processes import is_main
from soda_jax.parallel.sharding import put_rows, put_whole, replicated
from soda_jax.types import Batch, Tree

MOST = 32  # images drawn at once on one device


def class_titles(label_names: Mapping[str, Sequence[str]], classes: Sequence[int]) -> list[str]:
    """What classes of the one label of a data set are called."""
    names = next(iter(label_names.values()), None)
    return [names[number] if names else f"class {number}" for number in classes]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Pictures to draw, in rows and columns."""

    z: np.ndarray  # [rows, columns, s, d]
    noise: np.ndarray  # int [rows, columns]: drawings of equal number start from equal noise
    # where the method needs them, [rows, columns, ...]; and by the name "context" what `Encode.told` gives
    cameras: Mapping[str, np.ndarray] = field(default_factory=dict)
    # the images at t = 1, [rows, columns, h, w, c]; None: those of `noise`
    start: np.ndarray | None = None

    @property
    def count(self) -> int:
        return self.noise.size

    def flat(self) -> dict[str, np.ndarray]:
        """All arrays by name, [rows * columns, ...]."""
        arrays = {"z": self.z, "noise": self.noise, **self.cameras}
        arrays |= {} if self.start is None else {"start": self.start}
        return {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}


class Encode:
    """uint8 [n, h, w, c], or [n, v, h, w, c] of several sources -> z [n, s, d]."""

    def __init__(self, method: SODA, variables: Tree, mesh: Mesh):
        self._read = jax.jit(method.condition, out_shardings=replicated(mesh))
        self._variables, self._mesh = variables, mesh

    def __call__(self, images: np.ndarray, cameras: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """z; cameras: [n, ...], for an encoder that sees rays."""
        return self.told(images, cameras).z

    def told(self, images: np.ndarray, cameras: Mapping[str, np.ndarray] | None = None) -> Condition:
        """z, and with cross-attention the context."""
        rows = {"source": images, **(cameras or {})}
        return in_batches(
            lambda part: self._read(self._variables, part["source"], part if cameras else None),
            rows,
            self._mesh,
        )


Paint = Callable[[Sequence[Draw]], list[np.ndarray]]  # -> uint8 [rows, columns, h, w, c] for each


def draw(
    config: ConfigDict, method: SODA, variables: Tree, seed: int, mesh: Mesh | None = None
) -> tuple[Encode, Paint]:
    """The two functions of a trained model; all drawings of one call of `paint` share their batches.

    Either all of its jobs have a `start` or none.

    mesh: default: all devices of all processes, each of which gets all that is drawn.
    """
    mesh = make_mesh() if mesh is None else mesh
    variables = put_whole(variables, mesh)
    data = config.data
    shape = (data.image_size, data.image_size, data.channels)

    def paint(jobs: Sequence[Draw]) -> list[np.ndarray]:
        rows = {name: np.concatenate([job.flat()[name] for job in jobs]) for name in jobs[0].flat()}
        size, rounds = batch_size(len(rows["z"]), mesh.size)
        with Steps(len(rows["z"]), rounds * config.samples.steps) as steps:
            generate = generator(config, method, shape, seed, steps.advance, mesh)
            drawn = in_batches(lambda part: generate(variables, part), rows, mesh, size)
        parts = np.split(drawn, np.cumsum([job.count for job in jobs])[:-1])
        return [part.reshape(*job.noise.shape, *shape) for part, job in zip(parts, jobs, strict=True)]

    return Encode(method, variables, mesh), paint


def generator(
    config: ConfigDict, method: SODA, shape: tuple[int, int, int], seed: int, on_step: Callable, mesh: Mesh
) -> Callable:
    """(variables, {"z" [b, s, d], "noise" [b], cameras, perhaps "context" or "start"}) -> uint8 images, compiled."""
    sampler, root = networks.sampler(config), jax.random.key(seed)
    guidance = networks.guidance(config)

    def generate(variables, rows: Batch):
        noise = rows["start"] if "start" in rows else numbered_noise(root, rows["noise"], shape)
        fresh = jax.random.fold_in(root, 2**31 - 1)  # no noise has this number
        rest = {"guidance": guidance, "noise": noise, "cameras": rows, "on_step": on_step}
        rest |= {"context": rows["context"]} if "context" in rows else {}
        return to_uint8(method.generate(variables, rows["z"], sampler, fresh, shape, **rest))

    return jax.jit(generate, out_shardings=replicated(mesh))


def numbered_noise(
    root: Key[Array, ""], numbers: Int[Array, " b"], shape: tuple[int, int, int]
) -> Float[Array, "b h w c"]:
    """The noise of each number: another one for another number, or another root."""
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(root, i), shape))(numbers)


def batch_size(count: int, devices: int) -> tuple[int, int]:
    """(images a batch, batches): as few batches as `MOST` allows, all of one size that the devices divide."""
    rounds = math.ceil(count / (MOST * devices))
    return math.ceil(math.ceil(count / rounds) / devices) * devices, rounds


def in_batches(
    function: Callable[[Batch], Tree], arrays: Mapping[str, np.ndarray], mesh: Mesh, size: int = 0
) -> Any:
    """`function` over rows of the arrays, in equal batches over the devices, the last one filled up.

    It may give a tree of arrays; so does this, on the host.
    """
    count = len(next(iter(arrays.values())))
    size = size or batch_size(count, mesh.size)[0]
    done = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = put_rows({name: array[rows] for name, array in arrays.items()}, mesh)
        done.append(jax.device_get(function(part)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *done)


def source_columns(sources: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Sources of pictures, [n, h, w, c] or [n, v, h, w, c], as titled columns."""
    if sources.ndim == 4:
        return [("source", sources)]
    return [(f"source {i + 1}", sources[:, i]) for i in range(sources.shape[1])]


class Steps:
    """Progress of sampling: a bar on a terminal, a line at the start and the end elsewhere."""

    def __init__(self, images: int, steps: int):
        self._bar = tqdm(
            total=steps,
            unit=" steps",
            disable=not (is_main() and sys.stderr.isatty()),
            desc=f"drawing {images} images",
        )
        self._images, self._steps, self._done = images, steps, 0

    def __enter__(self) -> "Steps":
        if self._bar.disable and is_main():
            print(f"drawing {self._images} images in {self._steps} steps", flush=True)
        return self

    def advance(self, step: int, count: int = 1) -> None:
        """Called by the sampler after each of its steps, from a thread of its own; or by hand after so many."""
        self._bar.update(count)
        before, self._done = self._done, self._done + count
        quarter = max(1, self._steps // 4)
        if self._bar.disable and is_main() and self._done // quarter > before // quarter:
            print(f"  {self._done}/{self._steps} steps", flush=True)

    def __exit__(self, kind, error, traceback) -> None:
        jax.effects_barrier()
        self._bar.close()
