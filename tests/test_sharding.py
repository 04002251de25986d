"""Rules to shardings, and batches onto devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training.state import create
from soda_jax.training.step import make_step
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
        ((511, 513), P()),
        ((16, 16), P()),
        ((), P()),
    ],
)
def test_the_longest_fitting_axis_of_a_large_array_is_cut(shape, spec):
    assert sharding.partition("fsdp", leaf(*shape), make_mesh(2, 4)) == spec


def test_nothing_is_cut_on_a_mesh_without_fsdp_or_by_the_other_rule():
    assert sharding.partition("fsdp", leaf(1024, 1024), make_mesh(8, 1)) == P()
    assert sharding.partition("replicate", leaf(1024, 1024), make_mesh(1, 8)) == P()


def test_parameters_averages_and_moments_lie_alike(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST", 100)
    abstract, _ = abstract_state()
    placed = sharding.state_shardings(abstract, make_mesh(1, 4))
    trees = (placed.params, placed.ema_params, placed.opt_state[0].trace)
    params, average, moments = ([s.spec for s in jax.tree.leaves(tree)] for tree in trees)
    assert params == average == moments
    assert any(spec != P() for spec in params)


def optimizer():
    """Not Adam: it makes a whole step of the rounding error of a gradient that is zero."""
    return optax.sgd(0.1, momentum=0.9)


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


def test_rows_that_do_not_divide_are_kept_whole():
    mesh = make_mesh(4, 2)
    placed = sharding.put_rows({"a": np.zeros(16), "b": np.zeros(15)}, mesh)
    assert placed["a"].sharding.spec == P(("data", "fsdp")) and placed["b"].sharding.spec == P()


def test_training_does_not_depend_on_the_mesh(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST", 100)
    one, many = (three_steps(make_mesh(*axes)) for axes in ((1, 1), (2, 2)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def three_steps(mesh):
    """Parameters and statistics after 3 steps on a mesh."""
    abstract, init = abstract_state()
    placed = sharding.state_shardings(abstract, mesh)
    state = jax.jit(init, out_shardings=placed)()
    method = tiny.soda(encoder=tiny.Encoder(batch_norm=True))
    step = jax.jit(make_step(method, optimizer(), 0.9, 1, 0), donate_argnums=0, out_shardings=(placed, None))
    batch = tiny.batch()
    for _ in range(3):
        state, _ = step(state, sharding.put_batch(batch, tiny.spec(batch), mesh))
    return jax.device_get((state.ema_params, state.batch_stats))
