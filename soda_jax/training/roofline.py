"""How fast a chip can be at best, and how little a mesh can send: bounds, never forecasts.

    compute = operations / peak                                                                       (1)
    memory  = bytes / bandwidth of the memory                                                         (2)
    network = bytes sent inside a slice / its links + bytes sent between slices / their share         (3)
    bound   = max(compute, memory, network)                                                           (4)
    MFU    <= operations of the model / (peak x bound)                                                (5)

(4) takes everything that can overlap as overlapped, at the makers' figures: a real step takes longer.
A collective over g devices whose result has B bytes on each makes every device send at least

    all-reduce 2 B (g - 1) / g    all-gather, all-to-all B (g - 1) / g    reduce-scatter B (g - 1)    others B   (6)

whatever the algorithm. A mesh of d x f devices ("data" x "fsdp", n = d f) that sums the gradients of an array of S
bytes over all devices, and gathers it whole where it is cut in f parts, sends at least

    2 S (n - 1) / n    whole on every device                                                          (7)
    2 S (f - 1) / f + 2 (S / f) (d - 1) / d    cut: gathered once, gradients summed             (8)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from soda_jax.parallel.collectives import Collective
from soda_jax.training.chips import Chip
from soda_jax.types import Tree


@dataclass(frozen=True, kw_only=True)
class Bound:
    """(1) to (5) of one device: seconds, and shares of 1. `network` None: the chip's network is not known."""

    compute: float
    memory: float
    network: float | None
    mfu: float

    @property
    def seconds(self) -> float:
        """(4)."""
        return max(self.compute, self.memory, self.network or 0.0)

    @property
    def limit(self) -> str:
        """What (4) is the time of: compute, memory or network."""
        times = {"compute": self.compute, "memory": self.memory, "network": self.network or 0.0}
        return max(times, key=times.get)


def roofline(
    chip: Chip,
    dtype: str,
    *,
    operations: float,
    model: float,
    accessed: float,
    inside: float,
    between: float = 0.0,
) -> Bound:
    """(1) to (5) for one step of one device.

    operations: of the program; model: of the model, by hand; accessed: bytes to and from memory; inside, between: bytes
    sent inside a slice and to other slices. dtype: of the matrix products ("bfloat16" or "float32").
    """
    compute, memory = operations / chip.peak(dtype), accessed / chip.bandwidth
    network = _network(chip, inside, between)
    seconds = max(compute, memory, network or 0.0)
    mfu = model / (chip.peak(dtype) * seconds) if seconds else 0.0
    return Bound(compute=compute, memory=memory, network=network, mfu=mfu)


def _network(chip: Chip, inside: float, between: float) -> float | None:
    if (inside and not chip.link) or (between and not chip.between):
        return None
    return (inside / chip.link if inside else 0.0) + (between / chip.between if between else 0.0)


def sent(collective: Collective) -> float:
    """(6) of all runs of one collective in a step, in bytes of one device."""
    others = collective.groups - 1
    share = others / max(collective.groups, 1)
    factors = {"all-reduce": 2 * share, "reduce-scatter": others}
    factors |= dict.fromkeys(("all-gather", "all-to-all", "ragged-all-to-all"), share)
    return float(factors.get(collective.kind, 1) * collective.bytes * collective.runs)


def crosses(collective: Collective, slices: Sequence[int]) -> bool:
    """True if it leaves a slice; slices: the number of the slice of each device, in the program's order."""
    members = {slices[member] for member in collective.members if member < len(slices)}
    return collective.kind == "send" or len(members) > 1


def least_sent(params: Tree, shardings: Tree, width: int) -> float:
    """(7) and (8) of all parameters, in bytes of one device a step.

    width: bytes of an element as it travels; networks that compute in bfloat16 can send their kernels, and the
    gradients of them, in 2.
    """
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
    return math.fsum(_least(leaf, sharding, width) for leaf, sharding in leaves)


def _least(leaf: Tree, sharding: jax.sharding.NamedSharding, width: int) -> float:
    size, devices = width * math.prod(leaf.shape), sharding.mesh.size
    parts = math.prod(leaf.shape) // max(math.prod(sharding.shard_shape(leaf.shape)), 1)
    copies = devices // parts
    gather = size * (parts - 1) / parts
    return 2 * gather + 2 * size / parts * (copies - 1) / copies
