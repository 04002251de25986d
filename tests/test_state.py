"""The state that training starts from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.training.state import TrainState, ema_variables, variables
from tests import tiny

METHOD = tiny.soda(encoder=tiny.Encoder(batch_norm=True))


@pytest.fixture(scope="module")
def state() -> TrainState:
    return jax.jit(functools.partial(tiny.create_state, method=METHOD))(jax.random.key(0))


def test_the_average_starts_at_the_parameters(state):
    jax.tree.map(np.testing.assert_array_equal, variables(state), ema_variables(state))


def test_the_parameters_are_those_of_the_method(state):
    direct = jax.jit(lambda key: METHOD.init(key, tiny.spec(tiny.batch(4))))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, variables(state), direct)
    assert float(jnp.std(state.params["encoder"]["Conv_0"]["kernel"])) > 0.1


def test_all_else_is_zero_and_nothing_has_failed(state):
    """Which is what `tiny.state`, that most tests start from, takes for granted."""
    rest = {"params": {}, "batch_stats": {}, "ema_params": {}, "ema_batch_stats": {}}
    assert (int(state.step), int(state.failed_step)) == (0, -1)
    assert state.step.dtype == state.failed_step.dtype == jnp.int32
    jax.tree.map(np.testing.assert_array_equal, state.replace(**rest), tiny.state(METHOD).replace(**rest))
    assert jax.tree.structure(state) == jax.tree.structure(tiny.state(METHOD))


def test_every_leaf_is_an_array_with_a_buffer_of_its_own(state):
    """What is donated, saved by several processes and sharded must be arrays, none of them twice."""
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in leaves]
    assert len(set(buffers)) == len(buffers)


def test_names_end_alike_so_that_one_table_shards_all(state):
    kernel = "encoder/Conv_0/kernel"
    paths = [path for path, _ in jax.tree.leaves_with_path(state)]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    assert sorted(name.split(kernel)[0] for name in names if name.endswith(kernel)) == [
        "ema_params/",
        "opt_state/1/mu/",
        "opt_state/1/nu/",
        "params/",
    ]


def test_a_method_without_statistics_has_an_empty_tree():
    create = functools.partial(tiny.create_state, method=tiny.soda())
    abstract = jax.eval_shape(create, jax.random.key(0))
    assert abstract.batch_stats == {} and abstract.ema_batch_stats == {}
