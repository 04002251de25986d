"""The prior over latents: known answers for Gaussian latents, and what a step leaves alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import FROZEN, moving
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import replicated, with_shardings
from soda_jax.training import checkpoints
from soda_jax.training.checkpoints import Checkpoints
from soda_jax.training.state import ema_variables
from tests import tiny

SCHEDULE = Schedule(name="constant", steps=0)


class OfAGaussian(nn.Module):
    """The best guess of eps where standardised latents are N(0, I): E[eps | zt] = sigma(t) zt."""

    @nn.compact
    def __call__(self, zt, t):
        self.param("unused", nn.initializers.zeros, ())
        return SCHEDULE.sigma(t)[:, None] * zt


class Silent(nn.Module):
    """Says 0 whatever it sees."""

    @nn.compact
    def __call__(self, zt, t):
        return self.param("zero", nn.initializers.zeros, ()) * zt


def with_moments(method, mean, covariance):
    """Variables of a prior whose latents have these moments."""
    variables = tiny.variables(method)
    frozen = variables["batch_stats"][FROZEN]
    latent = {"mean": jnp.asarray(mean, jnp.float32), "covariance": jnp.asarray(covariance, jnp.float32)}
    return {**variables, "batch_stats": {FROZEN: {**frozen, "latent": latent}}}


def test_latents_come_back_from_noise_with_their_mean_and_deviation():
    """DDIM turns by the angle from t to s of (alpha, sigma), and x0 = alpha zt: each step shrinks by its cosine."""
    method = tiny.prior(network=OfAGaussian(), schedule=SCHEDULE)
    mean, deviation = np.arange(6.0), np.array([1, 2, 3, 0.5, 0.1, 4])
    variables = with_moments(method, mean, np.diag(deviation**2))
    noise = 3 * np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    z = method.generate(variables, jnp.asarray(noise), Sampler(steps=8), jax.random.key(0))
    t = jnp.linspace(1, 0, 9)
    angles = np.arctan2(SCHEDULE.sigma(t), SCHEDULE.alpha(t))
    shrunk = noise * np.prod(np.cos(np.diff(angles)))
    assert np.abs(shrunk).max() > 2  # so that clipping would be seen
    np.testing.assert_allclose(z, mean + deviation * shrunk, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(method.standardised(variables, z), shrunk, rtol=1e-4, atol=1e-3)


def test_a_dimension_that_never_varies_stays_what_it_is():
    method = tiny.prior(network=OfAGaussian(), schedule=SCHEDULE)
    variables = with_moments(method, np.full(6, 2.0), np.diag([1, 1, 1, 1, 1, 0.0]))
    assert np.isfinite(method.standardised(variables, jnp.full((1, 6), 2.0))).all()


@pytest.mark.parametrize("rank", [6, 2])
def test_the_gaussian_has_the_covariance_that_was_measured(rank):
    method, factor = tiny.prior(), np.random.default_rng(0).normal(size=(6, rank))
    variables = with_moments(method, np.arange(6.0), factor @ factor.T)
    root = np.asarray(method.gaussian(variables, jnp.eye(6))) - np.arange(6.0)
    np.testing.assert_allclose(root.T @ root, factor @ factor.T, atol=1e-4)


@pytest.mark.parametrize(("kind", "expected"), [("l1", np.sqrt(2 / np.pi)), ("l2", 1.0)])
def test_the_loss_of_a_silent_network_is_that_of_the_noise(kind, expected):
    method = tiny.prior(network=Silent(), loss_kind=kind)
    keys = jax.random.split(jax.random.key(0), 4000)
    losses = method.losses(tiny.variables(method)["params"]["prior"], jnp.ones((4000, 6)), keys)
    assert float(jnp.mean(losses)) == pytest.approx(expected, abs=4 / np.sqrt(6 * 4000))


def test_steps_learn_but_change_nothing_that_is_frozen():
    method, batch = tiny.prior(), tiny.batch()
    before = jax.device_get(tiny.variables(method))
    state, losses = tiny.state(method), []
    for _ in range(150):
        state, metrics = tiny.step(method)(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    after = jax.device_get(state)
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before["batch_stats"])
    assert after.ema_batch_stats == {}
    np.testing.assert_array_equal(
        method.encode(ema_variables(state), batch["source"])["z"], method.encode(before, batch["source"])["z"]
    )


def test_a_checkpoint_has_the_encoder_once_and_gives_it_with_the_averages(tmp_path):
    method = tiny.prior()
    state = tiny.state(method)
    with Checkpoints(tmp_path, keep=1, metadata={}) as saved:
        saved.save(1, state, {})
    names = checkpoints.load_as_saved(tmp_path, 1)
    assert sum("Conv_0" in name for name in names) == 1
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), ema_variables(state))
    place = jax.tree.map(lambda _: replicated(make_mesh()), wanted)
    found = checkpoints.restore_ema(tmp_path, 1, with_shardings(wanted, place))
    jax.tree.map(np.testing.assert_array_equal, found, ema_variables(state))
    assert moving(found["batch_stats"]) == {}


def test_an_unknown_loss_names_its_key():
    with pytest.raises(ValueError, match=r"prior\.loss must be one of l1, l2, found 'l3'"):
        tiny.prior(loss_kind="l3")
