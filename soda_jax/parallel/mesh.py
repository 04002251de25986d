"""The mesh of devices: axes `data` and `fsdp`, both of which the batch is cut over.

Where the devices lie in several slices, joined by a slower network, `data` runs over the slices and `fsdp` stays
inside one: parameters are gathered by the fast network, and only sums of gradients take the slow one.

A plan made for more devices than there are is folded: fewer devices, each taking several microbatches in
turn, so that the batch, and the images a device holds at a time, stay what they were.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
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
    """Axis sizes for `present` devices; -1, for one of them, means as many as the other leaves.

    Raises ValueError for sizes that make no mesh, and, without `fold`, for more devices than are present.
    """
    _check_sizes(data, fsdp, present)
    asked = max(data, 1) * max(fsdp, 1)
    if asked <= present:
        return Plan(
            data=present // fsdp if data == -1 else data, fsdp=present // data if fsdp == -1 else fsdp
        )
    if not fold:
        raise ValueError(
            f"mesh.data={data} and mesh.fsdp={fsdp} ask for {asked} devices, {present} are present: "
            "lower them, or set mesh.fold=True to make up for it by accumulation"
        )
    count = max(n for n in range(1, present + 1) if asked % n == 0)
    shards = math.gcd(max(fsdp, 1), count)
    return Plan(data=count // shards, fsdp=shards, folded=asked // count)


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Tree] | None = None) -> Mesh:
    """A mesh of the first data * fsdp devices (of all processes by default); -1: as many as are left.

    Raises what `plan_mesh` and `layout` raise.
    """
    devices = list(jax.devices()) if devices is None else list(devices)
    plan = plan_mesh(data, fsdp, len(devices), fold=False)
    placed = layout(plan.data, plan.fsdp, devices[: plan.devices])
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 2)


def layout(data: int, fsdp: int, devices: Sequence[Tree]) -> np.ndarray:
    """The devices as a table [data, fsdp], neighbours in the machine side by side in it.

    Raises ValueError where `fsdp` would cross from one slice of TPUs into another.
    """
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1:
        return mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=True)
    if data % len(slices) == 0 and len(set(slices.values())) == 1:
        inside = (data // len(slices), fsdp)
        return mesh_utils.create_hybrid_device_mesh(
            inside, (len(slices), 1), devices, allow_split_physical_axes=True
        )
    if (
        devices[0].platform != "tpu"
    ):  # elsewhere a slice is a machine, and the network between them is for this
        return np.asarray(sorted(devices, key=lambda device: device.id)).reshape(data, fsdp)
    sizes = " + ".join(str(size) for size in slices.values())
    raise ValueError(
        f"mesh.data={data} x mesh.fsdp={fsdp} would cut arrays over the slow network between slices ({sizes} "
        f"devices): mesh.data must be a multiple of {len(slices)}, and each slice take part with as many devices"
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
    for name, size in (("data", data), ("fsdp", fsdp)):
        if size != -1 and size < 1:
            raise ValueError(f"mesh.{name} must be -1 (what is left) or 1 or more, found {size}")
    if data == fsdp == -1:
        raise ValueError("mesh.data and mesh.fsdp are both -1: one of them must be a number")
    name, size = ("fsdp", fsdp) if data == -1 else ("data", data)
    if -1 in (data, fsdp) and size < present and present % size:
        raise ValueError(f"mesh.{name}={size} does not divide the {present} devices that are present")
