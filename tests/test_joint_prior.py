"""A prior that is trained along: what it adds, that the rest stays, and the pull on z that its docstring warns of."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import normal_like, stream
from soda_jax.methods.joint_prior import DRAWS, JointPrior
from soda_jax.methods.latent_denoiser import NOISE, TIME
from soda_jax.methods.noise_levels import NoiseLevels
from soda_jax.nn.latent_mlp import LatentMLP
from tests import tiny

SCHEDULE = Schedule(name="constant", steps=0)
NETWORK = LatentMLP(layers=3, width=8, time_width=4)
JOINT = JointPrior(weight=0.5, network=NETWORK, schedule=SCHEDULE, loss_kind="l2")
KEYS = jax.random.split(jax.random.key(1), 16)


def test_it_is_half_the_mean_square_error_of_the_noise_of_z():
    z = jax.random.normal(jax.random.key(2), (16, 3, 2))
    params, own = JOINT.params(jax.random.key(0), 6)["prior"], stream(KEYS, DRAWS)
    t = 1 - jax.vmap(jax.random.uniform)(stream(own, TIME))
    eps = np.asarray(normal_like(stream(own, NOISE), z.reshape(16, 1, 1, 6)))[:, 0, 0]
    abar = np.exp(-8 * np.asarray(t))[:, None]
    zt = np.sqrt(abar) * np.asarray(z).reshape(16, 6) + np.sqrt(1 - abar) * eps
    out = np.asarray(JOINT.network.apply({"params": params}, jnp.asarray(zt), t))
    assert float(JOINT(params, z, KEYS)) == pytest.approx(0.5 * np.mean((eps - out) ** 2), rel=1e-4)


def test_it_is_added_and_the_rest_stays_as_it_is():
    plain, joint = tiny.soda(), tiny.soda(joint_prior=JOINT, noise_levels=None)
    variables, batch = tiny.variables(joint), tiny.batch()
    alone, _ = jax.jit(plain.loss)(variables, batch, KEYS)
    (total, aux), grads = jax.jit(jax.value_and_grad(joint.loss, has_aux=True, allow_int=True))(
        {**variables, "batch_stats": {}}, batch, KEYS
    )
    term = aux["metrics"]["joint_prior"]
    assert float(total) == pytest.approx(float(alone + term), rel=1e-5) and float(term) > 0.01
    assert "joint_prior" not in joint.loss(variables, batch, KEYS, train=False)[1]["metrics"]
    assert all(np.any(np.asarray(x)) for x in jax.tree.leaves(grads["params"]["prior"]["out"]))


class Oracle(nn.Module):
    """The best estimate of eps of z ~ N(0, scale^2 I)."""

    scale: float

    def __call__(self, zt, t):
        alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
        return sigma * zt / (jnp.square(alpha * self.scale) + jnp.square(sigma))


def test_the_smaller_z_the_smaller_the_loss_even_of_the_best_prior():
    """The entropy that is missing: nothing in L_dsm holds z open."""
    keys = jax.random.split(jax.random.key(3), 2000)
    z = jax.random.normal(jax.random.key(4), (2000, 3, 2))
    found = [
        float(
            JointPrior(weight=1.0, network=Oracle(scale=s), schedule=SCHEDULE, loss_kind="l2")(
                {}, s * z, keys
            )
        )
        for s in (1.0, 0.3, 0.1, 0.01)
    ]
    assert found == sorted(found, reverse=True) and found[0] > 0.1 and found[-1] < 0.01


def test_it_goes_with_adaptive_noise_levels():
    method = tiny.soda(joint_prior=JOINT, noise_levels=NoiseLevels(kind="learned", bins=4))
    loss, aux = jax.jit(method.loss)(tiny.variables(method), tiny.batch(), KEYS)
    assert np.isfinite(float(loss)) and {"joint_prior", "t"} <= set(aux["metrics"])


def test_a_weight_that_is_none_names_its_key():
    with pytest.raises(ValueError, match=r"model\.joint_prior must be 0 \(off\) or more, found -1.0"):
        JointPrior(weight=-1.0, network=JOINT.network, schedule=SCHEDULE)
