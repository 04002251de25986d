"""Ten steps on 1, 2 and 8 devices, by data, fsdp and both, are the same ten steps, for every method."""

import functools

import jax
import numpy as np
import pytest

from soda_jax.parallel.mesh import make_mesh
from tests.methods import METHODS
from tests.sharded import MESHES, shardings, ten_steps


@functools.cache
def on_one_device(name):
    return ten_steps(METHODS[name], 1, 1)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mesh", MESHES)
def test_the_number_of_devices_changes_nothing(name, mesh):
    """Losses, parameters, averages, statistics and moments; BatchNorm is over the global microbatch."""
    losses, state = ten_steps(METHODS[name], *MESHES[mesh])
    expected, reference = on_one_device(name)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), state, reference)


@pytest.mark.parametrize("name", METHODS)
def test_fsdp_cuts_some_of_every_kind(name):
    """Otherwise the test above would show little."""
    _, placed = shardings(METHODS[name], make_mesh(2, 4))
    for tree in (placed.params, placed.ema_params, placed.opt_state):
        assert sum("fsdp" in place.spec for place in jax.tree.leaves(tree)) >= 3
