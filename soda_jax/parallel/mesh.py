"""The mesh of devices: axes `data` and `fsdp`, both of which the batch is cut over.

A plan made for more devices than there are is folded: fewer devices, each taking several microbatches in
turn, so that the batch, and the images a device holds at a time, stay what they were.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AxisType, Mesh

from soda_jax.types import Tree

AXES = ("data", "fsdp")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of the axes, and how many microbatches stand for each one that was asked for (1: not folded)."""

    data: int
    fsdp: int
    folded: int = 1

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.data * self.fsdp


def plan_mesh(data: int, fsdp: int, present: int, fold: bool) -> Plan:
    """Axis sizes for `present` devices; `data` -1 means as many as there are.

    Raises ValueError for sizes that make no mesh, and, without `fold`, for more devices than are present.
    """
    _check_sizes(data, fsdp, present)
    asked = max(data, 1) * fsdp
    if asked <= present:
        return Plan(data=present // fsdp if data == -1 else data, fsdp=fsdp)
    if not fold:
        raise ValueError(
            f"mesh.data={data} and mesh.fsdp={fsdp} ask for {asked} devices, {present} are present: "
            "lower them, or set mesh.fold=True to make up for it by accumulation"
        )
    count = max(n for n in range(1, present + 1) if asked % n == 0)
    shards = math.gcd(fsdp, count)
    return Plan(data=count // shards, fsdp=shards, folded=asked // count)


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Tree] | None = None) -> Mesh:
    """A mesh of the first data * fsdp devices (of all processes by default); -1: as many as there are."""
    devices = list(jax.devices()) if devices is None else list(devices)
    plan = plan_mesh(data, fsdp, len(devices), fold=False)
    return jax.make_mesh(
        (plan.data, plan.fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices[: plan.devices]
    )


def check_batch(batch: int, accumulation: int, devices: int) -> None:
    """Raise ValueError, naming the keys, unless every device gets equally many rows of each microbatch."""
    if accumulation < 1:
        raise ValueError(f"train.accumulation must be 1 or more, found {accumulation}")
    unit = accumulation * devices
    if batch < 1 or batch % unit:
        raise ValueError(
            f"train.batch={batch} must be a multiple of {unit} ({devices} devices x {accumulation} "
            f"microbatches): take {max(round(batch / unit), 1) * unit}, or change mesh.data, mesh.fsdp or "
            "train.accumulation"
        )


def _check_sizes(data: int, fsdp: int, present: int) -> None:
    if fsdp < 1:
        raise ValueError(f"mesh.fsdp must be 1 or more, found {fsdp}")
    if data != -1 and data < 1:
        raise ValueError(f"mesh.data must be -1 (all devices) or 1 or more, found {data}")
    if data == -1 and fsdp < present and present % fsdp:
        raise ValueError(f"mesh.fsdp={fsdp} does not divide the {present} devices that are present")
