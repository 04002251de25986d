"""Bounds by hand: what a chip allows, and what a mesh must send."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from soda_jax.parallel.collectives import Collective
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training.chips import Chip
from soda_jax.training.roofline import crosses, least_sent, roofline, sent

CHIP = Chip(name="x", kind="x", bfloat16=100.0, float32=50.0, memory=1, bandwidth=10.0, link=5.0, between=1.0)


def bound(chip=CHIP, dtype="bfloat16", **changes):
    figures = {"operations": 400.0, "model": 300.0, "accessed": 20.0, "inside": 5.0, **changes}
    return roofline(chip, dtype, **figures)


def test_the_slowest_of_compute_memory_and_network_is_the_bound():
    found = bound()
    assert (found.compute, found.memory, found.network) == (4.0, 2.0, 1.0)
    assert (found.seconds, found.limit) == (4.0, "compute") and found.mfu == pytest.approx(0.75)
    assert (bound(accessed=80.0).seconds, bound(accessed=80.0).limit) == (8.0, "memory")
    slow = bound(inside=10.0, between=7.0)
    assert (slow.network, slow.limit) == (2.0 + 7.0, "network") and slow.mfu == pytest.approx(3 / 9)


def test_float32_has_a_peak_of_its_own():
    assert bound(dtype="float32").compute == 8.0 and bound(dtype="float32").mfu == pytest.approx(0.75)


def test_a_network_that_nobody_published_is_not_guessed():
    alone = dataclasses.replace(CHIP, between=None)
    assert bound(alone).network == 1.0 and bound(alone, between=1.0).network is None
    assert bound(dataclasses.replace(CHIP, link=None)).network is None
    assert bound(dataclasses.replace(CHIP, link=None), inside=0.0).network == 0.0


def collective(kind, members=(0, 1, 2, 3), runs=1):
    shapes = (("f32", (10,)), ("bf16", (20,)))  # 80 bytes
    return Collective(kind=kind, shapes=shapes, members=members, in_loop=runs > 1, runs=runs, name="")


@pytest.mark.parametrize(
    ("kind", "bytes_sent"),
    [
        ("all-reduce", 2 * 80 * 3 / 4),
        ("all-gather", 80 * 3 / 4),
        ("all-to-all", 80 * 3 / 4),
        ("reduce-scatter", 80 * 3),
        ("collective-permute", 80),
    ],
)
def test_what_a_device_must_send(kind, bytes_sent):
    assert sent(collective(kind)) == bytes_sent
    assert sent(collective(kind, runs=3)) == 3 * bytes_sent


def test_talking_to_oneself_sends_nothing():
    assert sent(collective("all-reduce", members=(0,))) == 0


def test_what_leaves_a_slice():
    slices = [0, 0, 1, 1]
    assert not crosses(collective("all-reduce", members=(0, 1)), slices)
    assert crosses(collective("all-reduce", members=(0, 2)), slices)
    assert crosses(collective("send", members=(0,)), slices)


def least(spec, data, fsdp, width=4):
    mesh = make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    leaf = jax.ShapeDtypeStruct((16, 5), jnp.float32)  # 80 elements
    return least_sent({"a": leaf}, {"a": NamedSharding(mesh, PartitionSpec(*spec))}, width)


def test_the_least_that_a_mesh_sends():
    assert least((), 8, 1) == least((), 2, 4) == pytest.approx(2 * 320 * 7 / 8)
    assert least((), 1, 1) == 0
    gathered, scattered, summed = 320 * 3 / 4, 320 * 3 / 4, 2 * 80 * 1 / 2
    assert least(("fsdp",), 2, 4) == pytest.approx(gathered + scattered + summed)
    assert least(("fsdp",), 1, 8) == pytest.approx(2 * 320 * 7 / 8)
    assert least(("fsdp",), 2, 4, width=2) == pytest.approx(least(("fsdp",), 2, 4) / 2)
