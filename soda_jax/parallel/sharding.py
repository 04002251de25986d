"""Which array lies where: a table of (regular expression over "params/encoder/stem/kernel", rule).

One table serves parameters, their averages and the optimiser's moments: their names end alike.

    replicate   every device holds the whole array
    fsdp        cut along the longest axis that the mesh's `fsdp` divides; arrays under 4 MiB are replicated
    longest     the same, whatever its size
    input       cut along the channels that a kernel reads, its last axis but one, whatever its size
    output      cut along the channels that it writes, its last axis

All replicate an array that they do not fit. One line cuts, say, all attention of a network, small arrays too:
(r"attention/.*kernel$", "output").
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from soda_jax.types import Batch, Tree

Rule = Literal["replicate", "fsdp", "longest", "input", "output"]
Rules = Sequence[tuple[str, Rule]]

RULES: Rules = (
    (r"(^|/)(step|failed_step|count)$", "replicate"),
    (r"batch_stats/", "replicate"),
    (r"(^|/)block_\d+/.*kernel$", "longest"),  # of a DiT: many alike, in size S each under 4 MiB
    (r".*", "fsdp"),
)
SMALLEST = 4 * 2**20  # bytes: below this, gathering an array costs more than the memory that it saves


def name_of(path: tuple) -> str:
    """A tree path as "a/b/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def rule_of(name: str, rules: Rules = RULES) -> Rule:
    """The rule of the first expression that is found in the name; ValueError when none is."""
    for pattern, rule in rules:
        if re.search(pattern, name):
            return rule
    raise ValueError(f"no sharding rule matches {name!r}: add one to the table")


def state_shardings(
    abstract: Tree, mesh: Mesh | AbstractMesh, rules: Rules = RULES, smallest: int = SMALLEST
) -> Tree:
    """A NamedSharding for each array of the tree (ShapeDtypeStructs will do); smallest: see `partition`."""

    def place(path, leaf):
        return NamedSharding(mesh, partition(rule_of(name_of(path), rules), leaf, mesh, smallest))

    return jax.tree.map_with_path(place, abstract)


def partition(rule: Rule, leaf: Tree, mesh: Mesh | AbstractMesh, smallest: int = SMALLEST) -> PartitionSpec:
    """How one array is cut; by "fsdp" only if it has `smallest` bytes or more."""
    axis = _axis(rule, leaf, mesh.shape["fsdp"], smallest)
    return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, "fsdp")


def _axis(rule: Rule, leaf: Tree, size: int, smallest: int) -> int | None:
    """The axis that is cut into `size` parts."""
    fitting = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
    if rule in ("input", "output"):
        wanted = len(leaf.shape) - (2 if rule == "input" else 1)
        fitting = [axis for axis in fitting if axis == wanted]
    elif rule == "replicate" or (rule == "fsdp" and nbytes(leaf) < smallest):
        fitting = []
    return max(fitting, key=lambda axis: leaf.shape[axis]) if size > 1 and fitting else None


def nbytes(leaf: Tree) -> int:
    """Size of an array or of a ShapeDtypeStruct, in bytes (that of all devices together)."""
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def gather(tree: Tree, shardings: Tree) -> Tree:
    """Inside a jitted function: every array whole on each device, though it lies in parts outside.

    Without it the compiler lets the cuts of parameters run on into activations, and moves those instead.
    """

    def whole(x, place: NamedSharding):
        return x if place.is_fully_replicated else jax.lax.with_sharding_constraint(x, replicated(place.mesh))

    return jax.tree.map(whole, tree, shardings)


def with_shardings(abstract: Tree, shardings: Tree) -> Tree:
    """ShapeDtypeStructs that say where they lie: what restoring and compiling ask for."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def abstract_batch(spec: Batch, mesh: Mesh) -> Batch:
    """The spec of a global batch, cut over the devices."""
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh))
        for name, x in spec.items()
    }


def put_batch(batch: Batch, spec: Batch, mesh: Mesh) -> Batch:
    """The global batch on the devices, from the rows that this process holds; only what the spec names."""
    sharding = batch_sharding(mesh)
    with jax.transfer_guard("allow"):  # this transfer is meant, and with several processes JAX cannot tell
        return {
            name: jax.make_array_from_process_local_data(sharding, np.asarray(batch[name], x.dtype), x.shape)
            for name, x in spec.items()
        }


def put_whole(tree: Tree, mesh: Mesh) -> Tree:
    """What every process holds whole, whole on every device of the mesh, those of other processes too."""

    def put(x: jax.Array | np.ndarray) -> jax.Array:
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, replicated(mesh), lambda part: host[part])

    return jax.tree.map(put, tree)


def put_rows(batch: Batch, mesh: Mesh) -> Batch:
    """A batch that every process holds whole, cut over the devices; filled up with its last row till they divide."""

    def put(x: np.ndarray) -> jax.Array:
        rows = np.minimum(np.arange(len(x) + -len(x) % mesh.size), len(x) - 1)
        shape = (len(rows), *x.shape[1:])
        return jax.make_array_from_callback(shape, batch_sharding(mesh), lambda part: x[rows[part[0]]])

    return {name: put(np.asarray(x)) for name, x in batch.items()}
