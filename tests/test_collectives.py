"""The reader of collectives: every spelling of compiled programs, on text whose answer is known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from soda_jax.parallel.collectives import bits, collectives, first_group
from soda_jax.parallel.mesh import make_mesh

PROGRAM = (Path(__file__).parent / "golden" / "program_with_collectives.hlo").read_text()


def test_every_operation_is_found_once_with_its_size_and_its_rounds():
    found = [(c.kind, c.bytes, c.groups, c.in_loop, c.runs) for c in collectives(PROGRAM)]
    assert found == [
        ("reduce-scatter", 16 * 8 * 2, 4, False, 1),
        ("all-gather", 32 * 8 * 2, 8, False, 1),
        ("all-reduce", 36, 8, True, 3),
        ("collective-permute", 16, 2, False, 1),
        ("all-gather", 32, 4, False, 1),
        ("send", 64, 1, False, 1),
        ("all-reduce", 8, 2, False, 1),
    ]


def test_shapes_members_and_names_are_those_of_the_text():
    scatter, _, joined, *_ = collectives(PROGRAM)
    assert scatter.members == (0, 2, 4, 6) and scatter.name == ""
    assert joined.shapes == (("f32", (8,)), ("f32", ())) and joined.name == "jit(step)/while/body/sum"


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("{}", range(8)),
        ("{{0,2},{1,3}}", (0, 2)),
        ("[2,4]<=[8]", range(4)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("mesh['a'=2,'b'=4] {'b'}", range(4)),
        ("mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("mesh['a'=2,'b'=4] {'a','b'}", range(8)),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", range(4)),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("mesh['a'=8] {'a':(1)2}", (0, 4)),
        ("mesh['a'=8] {'a':(2)4}", (0, 1, 2, 3)),
    ],
)
def test_the_first_group_is_read_in_every_notation(text, members):
    line = (
        f"  %r = f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={text}, use_global_device_ids=true"
    )
    assert first_group(line, 8) == tuple(members)


def test_what_is_no_program_and_unknown_groups_are_errors():
    with pytest.raises(ValueError, match="HloModule"):
        collectives("module @jit_step {}")
    with pytest.raises(ValueError, match=r"replica_groups.* found 'V2\[8\]'"):
        first_group("all-reduce(%x), replica_groups=V2[8], to_apply=%add", 8)


@pytest.mark.parametrize(
    ("kind", "size"), [("f32", 32), ("bf16", 16), ("s4", 4), ("pred", 8), ("f8e4m3fn", 8), ("token", 0)]
)
def test_bits_of_the_types(kind, size):
    assert bits(kind) == size


def test_a_real_program_says_what_it_does():
    """A mean over rows that lie on 8 devices, in a loop of 5; and the same rows on all devices."""
    mesh = make_mesh(4, 2)
    rows, whole = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())

    def sums(x):
        return jax.lax.scan(lambda total, k: (total + jnp.sum(k * x, axis=0), None), x[0], jnp.arange(5.0))[0]

    x = jax.device_put(np.ones((16, 6), np.float32), rows)
    (total, *others) = collectives(jax.jit(sums).lower(x).compile().as_text())[::-1]
    in_loop = [c for c in (total, *others) if c.in_loop]
    assert [(c.kind, c.shapes, c.groups, c.runs) for c in in_loop] == [("all-reduce", (("f32", (6,)),), 8, 5)]
    (gather,) = collectives(jax.jit(lambda x: x + 1, out_shardings=whole).lower(x).compile().as_text())
    assert (gather.kind, gather.bytes, gather.members) == ("all-gather", 16 * 6 * 4, tuple(range(8)))
