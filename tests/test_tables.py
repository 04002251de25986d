"""The tables that are printed before training."""

import jax
import jax.numpy as jnp
import pytest

from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training import tables


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


TREE = {
    "denoiser": {"down_0_block0": {"kernel": leaf(4, 4)}, "down_0_conv": {"bias": leaf(4)}},
    "encoder": {"stage1_block2": {"conv0": {"kernel": leaf(1000, 2)}}, "head": {"bias": leaf(3)}},
}


def test_parameters_are_summed_by_part_and_in_all():
    rows = [line.split() for line in tables.parameter_table(TREE).splitlines()]
    assert rows == [
        ["module", "arrays", "parameters"],
        ["denoiser/down_0", "2", "20"],
        ["encoder/head", "1", "3"],
        ["encoder/stage1", "1", "2,000"],
        ["all", "4", "2,023"],
    ]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder/stage1_block2/conv0/kernel", "encoder/stage1"),
        ("denoiser/up_1_conv/kernel", "denoiser/up_1"),
        ("denoiser/out_norm/scale", "denoiser/out"),
        ("encoder/block12/attention/kernel", "encoder/block12"),
        ("bias", "bias"),
    ],
)
def test_the_part_of_a_name(name, part):
    assert tables.part_of(name) == part


def test_columns_are_aligned():
    assert tables.table(("a", "n"), [("long", "7"), ("b", "123")], right=(1,)) == (
        "a       n\nlong    7\nb     123"
    )


def test_the_sharding_table_tells_what_is_cut():
    state = {"params": TREE, "step": jax.ShapeDtypeStruct((), jnp.int32)}
    placed = sharding.state_shardings(state, make_mesh(1, 4), smallest=1000)
    text = tables.sharding_table(state, placed)
    rows = {tuple(" ".join(line.split()).split(" ")) for line in text.splitlines()[1:]}
    assert ("params", "fsdp", "axis", "0:", "fsdp", "1", "7.8", "KiB") in rows
    assert ("params", "fsdp", "-", "3", "92", "B") in rows and (
        "step",
        "replicate",
        "-",
        "1",
        "4",
        "B",
    ) in rows
    whole, local = tables.state_bytes(state, placed)
    assert whole == 4 * 2024 and local == 4 * (2024 - 1500)


def test_memory_of_a_compiled_step():
    mesh = make_mesh(1, 1)
    state = {"w": leaf(256, 1024)}
    placed = sharding.state_shardings(state, mesh)
    compiled = jax.jit(lambda s: {"w": s["w"] * 2}, donate_argnums=0).lower(state).compile()
    text = tables.memory_text(state, placed, compiled)
    assert text.startswith("memory: state 1.0 MiB (1.0 MiB a device); a step needs 1.0 MiB a device")


@pytest.mark.parametrize(
    ("size", "text"), [(12, "12 B"), (2048, "2.0 KiB"), (3 * 2**20, "3.0 MiB"), (5 * 2**40, "5120.00 GiB")]
)
def test_sizes_for_people(size, text):
    assert tables.size_text(size) == text
