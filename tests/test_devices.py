"""Ten steps on 1, 2 and 8 devices, by data, fsdp and both, are the same ten steps, for every method."""

import functools

import jax
import numpy as np
import pytest

from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import name_of
from tests import methods
from tests.sharded import MESHES, shardings, ten_steps

METHODS = methods.METHODS | methods.OTHERS


@functools.cache
def on_one_device(name):
    return ten_steps(METHODS[name], 1, 1)


FEW = ("8 fsdp", "2 x 4")  # of the meshes; SODA has them all
OPTIONS = ("soda_learned", *methods.OTHERS)  # whose networks other cases have on more meshes
RARE = 1e-3  # in networks with ten times the parameters of the others, some are always near 0
FAR = 6e-3  # a step of the rate 3e-3, the other way
CASES = [("soda", mesh) for mesh in MESHES]
CASES += [(name, mesh) for name in METHODS if name not in ("soda", *OPTIONS) for mesh in FEW]
LEFT_OUT = (
    "wide",
    "soda_dit",
    "landmarks",
)  # what is theirs is in supervised, in soda and ddae_dit, in segmentation
CASES += [(name, "2 x 4") for name in OPTIONS if name not in LEFT_OUT]


@pytest.mark.parametrize(("name", "mesh"), CASES)
def test_the_number_of_devices_changes_nothing(name, mesh):
    """Losses, parameters, averages, statistics and moments; BatchNorm is over the global microbatch."""
    losses, state = ten_steps(METHODS[name], *MESHES[mesh])
    expected, reference = on_one_device(name)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    rare = RARE if name.startswith("ddae") or name == "finetuned" else 0.0  # the same U-Net
    jax.tree.map(
        lambda x, y: check_close(x, y, rare), without_key_biases(state), without_key_biases(reference)
    )


def check_close(found, expected, rare):
    """To 1e-5, but for a share of the elements: where a gradient comes near Adam's 1e-8, rounding decides its step."""
    off = np.abs(found - expected) > 1e-5 * (1 + np.abs(expected))
    assert off.sum() <= np.ceil(rare * off.size), (off.sum(), off.size)
    np.testing.assert_allclose(found, expected, rtol=0 if rare else 1e-5, atol=FAR if rare else 1e-5)


def without_key_biases(state):
    """The bias of attention's keys changes no softmax: its gradient is rounding, of which Adam makes whole steps."""

    def keep(path, leaf):
        if not name_of(path).endswith("attention/qkv/bias"):
            return leaf
        return np.delete(leaf, np.s_[len(leaf) // 3 : 2 * len(leaf) // 3])

    return jax.tree.map_with_path(keep, state)


@pytest.mark.parametrize("name", methods.METHODS)
def test_fsdp_cuts_some_of_every_kind(name):
    """Otherwise the test above would show little."""
    _, placed = shardings(METHODS[name], make_mesh(2, 4))
    for tree in (placed.params, placed.ema_params, placed.opt_state):
        assert sum("fsdp" in place.spec for place in jax.tree.leaves(tree)) >= 3
