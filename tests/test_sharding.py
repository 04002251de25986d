"""Rules to shardings, and batches onto devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from soda_jax.nn.unet import UNet
from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training.state import create
from tests import tiny


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("step", "replicate"),
        ("failed_step", "replicate"),
        ("opt_state/1/count", "replicate"),
        ("batch_stats/encoder/stem/norm/mean", "replicate"),
        ("ema_batch_stats/encoder/stem/norm/var", "replicate"),
        ("params/denoiser/down_0_conv/kernel", "fsdp"),
        ("opt_state/1/mu/encoder/head/kernel", "fsdp"),
        ("params/encoder/step_block/kernel", "fsdp"),
        ("params/denoiser/down_0_block0/conv0/kernel", "fsdp"),
        ("params/denoiser/block_3/attention/qkv/kernel", "longest"),
        ("opt_state/1/mu/encoder/block_11/mlp0/kernel", "longest"),
        ("params/denoiser/block_3/attention/qkv/bias", "fsdp"),
    ],
)
def test_the_table_decides_by_name(name, rule):
    assert sharding.rule_of(name) == rule


def test_a_name_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="no sharding rule matches 'b'"):
        sharding.rule_of("b", rules=[("^a$", "fsdp")])


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 512, 256), P(None, None, "fsdp")),
        ((3, 3, 256, 512), P(None, None, None, "fsdp")),
        ((3, 3, 511, 256), P(None, None, None, "fsdp")),
        ((1024, 1024), P("fsdp")),
        ((1023, 1024), P()),
        ((1025, 1027), P()),
        ((16, 16), P()),
        ((), P()),
    ],
)
def test_the_longest_fitting_axis_of_a_large_array_is_cut(shape, spec):
    assert sharding.partition("fsdp", leaf(*shape), make_mesh(2, 4)) == spec


def test_nothing_is_cut_on_a_mesh_without_fsdp_or_by_the_other_rule():
    assert sharding.partition("fsdp", leaf(1024, 1024), make_mesh(8, 1)) == P()
    assert sharding.partition("replicate", leaf(1024, 1024), make_mesh(1, 8)) == P()


def test_smallest_is_the_caller_s_to_choose():
    mesh = make_mesh(2, 4)
    assert sharding.partition("fsdp", leaf(8, 16), mesh, smallest=512) == P(None, "fsdp")
    assert sharding.partition("fsdp", leaf(8, 16), mesh, smallest=513) == P()


@pytest.mark.parametrize(
    ("rule", "shape", "spec"),
    [
        ("longest", (6, 8), P(None, "fsdp")),
        ("longest", (3, 12, 8), P(None, "fsdp")),
        ("longest", (6, 6), P()),
        ("output", (512, 8), P(None, "fsdp")),
        ("output", (3, 3, 512, 3), P()),
        ("output", (8,), P("fsdp")),
        ("input", (3, 3, 8, 512), P(None, None, "fsdp")),
        ("input", (6, 512), P()),
        ("input", (8,), P()),
        ("output", (), P()),
    ],
)
def test_a_rule_may_name_the_axis_whatever_the_size(rule, shape, spec):
    assert sharding.partition(rule, leaf(*shape), make_mesh(2, 4)) == spec
    assert sharding.partition(rule, leaf(*shape), make_mesh(8, 1)) == P()


def test_one_line_cuts_the_attention_and_its_averages_and_moments():
    """Of a network none of whose arrays is large: everything else stays whole."""
    method = tiny.soda(
        denoiser=UNet(channels=8, multipliers=(1,), attention=(True,), blocks=1, groups=4), **SIX
    )
    abstract = jax.eval_shape(lambda: create(method, optimizer(), jax.random.key(0), tiny.spec(tiny.batch())))
    rules = ((r"attention/.*kernel$", "output"), *sharding.RULES)
    placed = sharding.state_shardings(abstract, make_mesh(2, 4), rules)
    cut = {
        sharding.name_of(path): place.spec
        for path, place in jax.tree.leaves_with_path(placed)
        if place.spec != P()
    }
    assert set(cut.values()) == {P(None, "fsdp")} and all("attention/" in name for name in cut)
    for tree in ("params", "ema_params", "opt_state/0/trace"):
        assert {f"{tree}/denoiser/down_0_block0/attention/{part}/kernel" for part in ("qkv", "out")} <= set(
            cut
        )


def test_parameters_averages_and_moments_lie_alike():
    abstract, _ = abstract_state()
    placed = sharding.state_shardings(abstract, make_mesh(1, 4), smallest=100)
    trees = (placed.params, placed.ema_params, placed.opt_state[0].trace)
    params, average, moments = ([s.spec for s in jax.tree.leaves(tree)] for tree in trees)
    assert params == average == moments
    assert any(spec != P() for spec in params)


def optimizer():
    """Not Adam: it makes a whole step of the rounding error of a gradient that is zero."""
    return optax.sgd(0.1, momentum=0.9)


SIX = {"encoder": tiny.Encoder(latent_dim=15)}


def abstract_state():
    """Of a small SODA with BatchNorm, and the function that makes it."""
    method, spec = tiny.soda(encoder=tiny.Encoder(batch_norm=True)), tiny.spec(tiny.batch())

    def init():
        return create(method, optimizer(), jax.random.key(0), spec)

    return jax.eval_shape(init), init


def test_only_the_rows_of_a_process_are_put_and_in_their_type():
    mesh = make_mesh(4, 2)
    spec = {"x": jax.ShapeDtypeStruct((16, 2), jnp.int32)}
    rows = np.arange(32, dtype=np.int64).reshape(16, 2)
    placed = sharding.put_batch({"x": rows, "unused": rows}, spec, mesh)
    assert set(placed) == {"x"} and placed["x"].dtype == jnp.int32
    assert placed["x"].sharding == sharding.batch_sharding(mesh)
    assert [shard.data.shape for shard in placed["x"].addressable_shards] == [(2, 2)] * 8
    np.testing.assert_array_equal(placed["x"], rows)


def test_rows_that_do_not_divide_are_filled_up_with_the_last():
    mesh = make_mesh(4, 2)
    placed = sharding.put_rows({"a": np.arange(16), "b": np.arange(22).reshape(11, 2)}, mesh)
    assert placed["a"].sharding == placed["b"].sharding == sharding.batch_sharding(mesh)
    np.testing.assert_array_equal(placed["a"], np.arange(16))
    np.testing.assert_array_equal(placed["b"], [*np.arange(22).reshape(11, 2), *[[20, 21]] * 5])
