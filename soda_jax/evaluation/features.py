"""Frozen features of every image of a split: one jitted pass, the batch cut over all devices.

With several processes each of them reads its rows of a batch, and all of them get the whole table.

Batches are those of `data.pipeline.evaluation_batches`: {"image": uint8 [b, h, w, c], "labels":
{name: int [b]}, "index": int [b], "valid": bool [b]}. Rows that are not valid (the filling of the last batch)
are left out.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.processes import process_count
from soda_jax.parallel.sharding import batch_sharding, put_whole, replicated
from soda_jax.types import Batch, Bytes, Features, Tree

Encode = Callable[[Tree, Bytes], Features]  # (variables, images) -> flat features by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """What is known of the images of a split, row by row, on the host.

    Attributes:
      features: name -> float32 [b, n].
      labels: name -> class number [b].
      index: number of the image in its split [b].
      groups: number of the scene that it shows [b]; its own number where images stand alone.
    """

    features: dict[str, Float[np.ndarray, "b _"]]
    labels: dict[str, Int[np.ndarray, " b"]]
    index: Int[np.ndarray, " b"]
    groups: Int[np.ndarray, " b"]

    def __len__(self) -> int:
        return len(self.index)


def local_mesh() -> Mesh:
    """All devices of this process along `data`."""
    return make_mesh(devices=jax.local_devices())


class Rows:
    """Compiles a function of (variables, batch) once, and runs it over splits, each batch cut over the devices.

    Args:
      function: pure; gives a tree of arrays by name, whose first axis is the batch's, "valid" among them.
      mesh: default: all devices of all processes.
    """

    def __init__(self, function: Callable[[Tree, Batch], Batch], mesh: Mesh | None = None):
        self.mesh = make_mesh() if mesh is None else mesh
        several = process_count() > 1  # then every one of them wants to read all rows
        self.program = jax.jit(function, out_shardings=(replicated if several else batch_sharding)(self.mesh))

    def valid(self, variables: Tree, batches: Iterable[Batch]) -> Iterator[Mapping]:
        """What the function gives of the valid rows of each batch, on the host, one batch after the other."""
        variables = put_whole(variables, self.mesh)
        started = (self.program(variables, put_filled(batch, self.mesh)) for batch in batches)
        yield from map(_valid, one_behind(started))

    def whole(self, variables: Tree, batches: Iterable[Batch]) -> Mapping:
        """Of all valid rows, in the order of the batches. ValueError where there is none."""
        return _concatenated(list(self.valid(variables, batches)))


class Extractor(Rows):
    """Rows of features.

    Args:
      encode: pure; what it computes for features that are not asked for is left out by the compiler.
      names: which of its features.
      mesh: default: all devices of all processes.
    """

    def __init__(self, encode: Encode, names: tuple[str, ...], mesh: Mesh | None = None):
        def function(variables: Tree, batch: Batch) -> Batch:
            known = {name: batch[name] for name in ("labels", "index", "valid")}
            return {**known, "features": _named(encode(variables, batch["image"]), names)}

        super().__init__(function, mesh)

    def __call__(self, variables: Tree, batches: Iterable[Batch], views: int = 1) -> Table:
        """The features of every valid image, in the order of the batches.

        Args:
          variables: first argument of `encode`; copied to every device of the mesh.
          batches: see the module; every batch has the same size. Of several processes each gives its rows.
          views: images of a scene: image i shows scene i // views.

        Raises:
          ValueError: the encoder has no such feature, or there is no valid image.
        """
        whole = _concatenated(list(self.stream(variables, batches)))
        return Table(**whole, groups=whole["index"] // views)

    def stream(self, variables: Tree, batches: Iterable[Batch]) -> Iterator[Mapping]:
        """The valid rows of each batch, {"features": {name: [n, _]}, "labels", "index"}, one batch after the other."""
        for piece in self.valid(variables, batches):
            labels = {name: y.astype(np.int32) for name, y in piece["labels"].items()}
            yield {"features": piece["features"], "labels": labels, "index": piece["index"]}


def put_filled(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows, filled up till its devices divide them, as a part of the global batch."""
    rows = batch_sharding(mesh)
    filling = -len(batch["valid"]) % len(rows.addressable_devices)

    def put(x: np.ndarray) -> jax.Array:
        filled = np.pad(x, ((0, filling), *((0, 0),) * (x.ndim - 1)))  # black, and not valid
        return jax.make_array_from_process_local_data(rows, filled)

    return jax.tree.map(lambda x: put(np.asarray(x)), dict(batch))


def _named(features: Features, names: tuple[str, ...]) -> Features:
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(f"expected features {missing}, the encoder has {sorted(features)}")
    return {name: features[name].astype(jnp.float32) for name in names}


def one_behind(results: Iterator[Batch]) -> Iterator[Batch]:
    """Each result after the next one was started: devices work while the host copies."""
    last = next(results, None)
    for result in results:
        yield last
        last = result
    if last is not None:
        yield last


def _valid(batch: Batch) -> Mapping:
    """The valid rows of a batch, on the host, without saying so."""
    found = dict(jax.device_get(batch))
    valid = found.pop("valid")
    return jax.tree.map(lambda x: x[valid], found)


def _concatenated(pieces: list[Mapping]) -> Mapping:
    if not sum(len(piece["index"]) for piece in pieces):
        raise ValueError("there is no image to encode: the split is empty, or config.probe.max_* left none")
    return jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)


def pixels(images: Bytes, side: int = 32) -> Float[Array, "b n"]:
    """Raw pixels in 0..1, flat; images larger than `side` are shrunk to it, antialiased, to be affordable."""
    scaled = images.astype(jnp.float32) / 255
    b, h, w, c = scaled.shape
    shape = (b, min(h, side), min(w, side), c)
    if shape != scaled.shape:
        scaled = jax.image.resize(scaled, shape, "linear", antialias=True)
    return scaled.reshape(b, -1)
