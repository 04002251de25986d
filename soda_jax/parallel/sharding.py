"""Which array lies where: a table of (regular expression over "params/encoder/stem/kernel", rule).

One table serves parameters, their averages and the optimiser's moments: their names end alike.

    replicate   every device holds the whole array
    fsdp        cut along the longest axis that the mesh's `fsdp` divides; arrays under 4 MiB are replicated
    input       cut along the channels that a kernel reads, its last axis but one, whatever its size
    output      cut along the channels that it writes, its last axis

The last two replicate an array that they do not fit. One line cuts, say, all attention of a network, small
arrays too: (r"attention/.*kernel$", "output").
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from soda_jax.types import Batch, Tree

Rule = Literal["replicate", "fsdp", "input", "output"]
Rules = Sequence[tuple[str, Rule]]

RULES: Rules = (
    (r"(^|/)(step|failed_step|count)$", "replicate"),
    (r"batch_stats/", "replicate"),
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
    elif rule == "replicate" or nbytes(leaf) < smallest:
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


def gather(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """Inside a jitted function: every array whole on each device, whatever it is cut like outside.

    Without it the compiler lets the cuts of parameters run on into activations, and moves those instead.
    """
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, replicated(mesh)), tree)


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
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(batch[name], x.dtype), x.shape)
        for name, x in spec.items()
    }


def put_rows(batch: Batch, mesh: Mesh) -> Batch:
    """Any batch on the devices: cut over them where they divide its rows, else the same on each."""
    devices = math.prod(mesh.shape.values())

    def put(x):
        return jax.device_put(x, replicated(mesh) if len(x) % devices else batch_sharding(mesh))

    return {name: put(np.asarray(x)) for name, x in batch.items()}
