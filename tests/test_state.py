"""The state that training starts from."""

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.training.state import ema_variables, variables
from tests import tiny

METHOD = tiny.soda(encoder=tiny.Encoder(batch_norm=True))


def test_the_average_starts_at_the_parameters():
    state = tiny.state(METHOD)
    jax.tree.map(np.testing.assert_array_equal, variables(state), ema_variables(state))
    jax.tree.map(np.testing.assert_array_equal, variables(state), tiny.variables(METHOD))


def test_no_step_is_done_and_none_has_failed():
    state = tiny.state(METHOD)
    assert (int(state.step), int(state.failed_step)) == (0, -1)
    assert state.step.dtype == state.failed_step.dtype == jnp.int32


def test_every_leaf_is_an_array_with_a_buffer_of_its_own():
    """What is donated, saved by several processes and sharded must be arrays, none of them twice."""
    leaves = jax.tree.leaves(tiny.state(METHOD))
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size]
    assert len(set(buffers)) == len(buffers)


def test_names_end_alike_so_that_one_table_shards_all():
    names = [
        jax.tree_util.keystr(p, simple=True, separator="/")
        for p, _ in jax.tree.leaves_with_path(tiny.state(METHOD))
    ]
    kernel = "encoder/Conv_0/kernel"
    assert sorted(name.split(kernel)[0] for name in names if name.endswith(kernel)) == [
        "ema_params/",
        "opt_state/1/mu/",
        "opt_state/1/nu/",
        "params/",
    ]


def test_a_method_without_statistics_has_an_empty_tree():
    state = tiny.state(tiny.soda())
    assert state.batch_stats == {} and state.ema_batch_stats == {}
