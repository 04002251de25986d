"""Ten steps on 1, 2 and 8 devices are the same ten steps, for every method."""

import jax
import numpy as np
import pytest

from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import batch_sharding, replicated
from soda_jax.training.step import make_step
from tests import tiny

METHODS = {
    "soda": tiny.soda(encoder=tiny.Encoder(batch_norm=True), denoiser=tiny.Denoiser(dropout=0.1)),
}


def ten_steps(method, devices: int, accumulation: int):
    """Losses and the last state; BatchNorm is over the global microbatch whatever the devices."""
    mesh = make_mesh(data=devices, devices=jax.devices()[:devices])
    state = jax.device_put(tiny.state(method), replicated(mesh))
    step = jax.jit(make_step(method, tiny.optimizer(), 0.99, accumulation, seed=0), donate_argnums=0)
    losses = []
    for i in range(10):
        state, metrics = step(state, jax.device_put(tiny.batch(seed=i), batch_sharding(mesh)))
        losses.append(metrics["loss"])
    assert len(losses[0].sharding.device_set) == devices
    return np.asarray(losses), jax.device_get((state.params, state.ema_params, state.batch_stats))


@pytest.mark.parametrize("name", METHODS)
def test_the_number_of_devices_changes_nothing(name):
    one, *others = (ten_steps(METHODS[name], devices, accumulation=2) for devices in (1, 2, 8))
    for losses, state in others:
        np.testing.assert_allclose(losses, one[0], rtol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), state, one[1])
