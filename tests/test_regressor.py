"""The regressor is SODA without xt: its loss by hand, its pictures, and what it learns where the target is open."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.methods.base import to_float
from soda_jax.methods.regressor import Regressor
from soda_jax.methods.soda import SODA
from soda_jax.nn.rays import Rays
from tests import tiny
from tests.methods import METHODS

BATCH = tiny.batch()
KEYS = jax.random.split(jax.random.key(1), 16)
FIELDS = {"encoder": tiny.Encoder(), "schedule": tiny.soda().schedule}
METHOD = Regressor(denoiser=tiny.Denoiser(), **FIELDS)


def painted(method, z, cameras=None):
    """By hand: the network at xt = 0 and t = 1."""
    blank = jnp.zeros((len(z), 8, 8, 1))
    if method.rays:
        blank = jnp.concatenate([blank, method.rays(cameras, 8, 8)], -1)
    params = {"params": tiny.variables(method)["params"]["denoiser"]}
    return method.denoiser.apply(params, blank, jnp.ones(len(z)), z)[0]


@pytest.mark.parametrize("rays", [None, Rays(scale=2.0)])
def test_the_loss_is_the_squared_error_of_what_it_paints(rays):
    method = Regressor(denoiser=tiny.Denoiser(channels=1), rays=rays, **FIELDS)
    variables = tiny.variables(method)
    z = method.latent(variables, BATCH["source"])
    error = np.asarray(painted(method, z, BATCH)) - np.asarray(to_float(BATCH["target"]))
    losses = method.loss_given_latent(variables, z, BATCH, KEYS)
    np.testing.assert_allclose(losses, np.mean(error**2, axis=(1, 2, 3)), rtol=1e-5)
    others = method.loss_given_latent(variables, z, BATCH, KEYS[::-1])  # nothing is drawn
    np.testing.assert_array_equal(losses, others)
    np.testing.assert_allclose(method.loss(variables, BATCH, KEYS, train=False)[0], losses.mean(), rtol=1e-6)


def test_it_has_the_arrays_of_soda():
    shapes = [
        jax.eval_shape(lambda key, m=m: m.init(key, tiny.spec(BATCH)), jax.random.key(0))
        for m in (METHOD, SODA(denoiser=tiny.Denoiser(), **FIELDS))
    ]
    assert shapes[0] == shapes[1]


def test_it_paints_one_picture_whatever_the_noise():
    variables, z = tiny.variables(METHOD), 3 * jax.random.normal(jax.random.key(5), (4, 3, 2))
    first, other = (
        METHOD.generate(
            variables,
            z,
            Sampler(steps=s),
            jax.random.key(s),
            (8, 8, 1),
            guidance=g,
            noise=jnp.full((4, 8, 8, 1), g),
        )
        for s, g in ((1, 0.0), (7, 3.0))
    )
    np.testing.assert_array_equal(first, other)
    np.testing.assert_allclose(first, np.clip(painted(METHOD, z), -1, 1), rtol=1e-6)
    assert jnp.abs(first[0] - first[1]).max() > 0.01


def test_asked_for_eps_it_gives_that_of_its_picture():
    """A walk by its eps, from any noise and in any number of steps, ends at the picture."""
    variables, z = tiny.variables(METHOD), jax.random.normal(jax.random.key(5), (4, 3, 2))
    for sampler in (Sampler(steps=1, clip_x0=False), Sampler(steps=4, clip_x0=False)):
        walked = super(Regressor, METHOD).generate(variables, z, sampler, jax.random.key(6), (8, 8, 1))
        np.testing.assert_allclose(walked, painted(METHOD, z), atol=1e-4)


def test_of_two_targets_that_are_equally_likely_it_learns_the_mean():
    """Every source comes with a light and a dark picture; it ends halfway, at the error of the halfway picture."""
    few = {name: x[:4] for name, x in BATCH.items()}
    twice = {name: jnp.concatenate([x, x]) for name, x in few.items()}
    levels = jnp.array([[250, 230, 150, 240], [10, 90, 100, 200]], jnp.uint8)
    twice["target"] = jnp.tile(levels.reshape(8, 1, 1, 1), (1, 8, 8, 1))
    method = Regressor(denoiser=tiny.Denoiser(), mask_section=0.0, mask_all=0.0, source_noise=0.0, **FIELDS)
    variables, losses = fitted(method, twice, steps=400)
    z = method.latent(variables, few["source"])
    images = method.generate(variables, z, Sampler(), jax.random.key(0), (8, 8, 1))
    mean = to_float(levels).mean(axis=0)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), mean, atol=0.03)
    assert losses[-1] == pytest.approx(float(np.var(to_float(levels), axis=0).mean()), rel=0.03)


def fitted(method, batch, steps):
    """The variables after so many steps on one batch, and the losses on the way."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-2, steps))

    def loss(params):
        return method.loss({"params": params, "batch_stats": {}}, batch, KEYS[: len(batch["target"])])[0]

    def step(carry, _):
        params, moments = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), value

    params = tiny.variables(method)["params"]
    start = params, optimizer.init(params)
    (params, _), losses = jax.jit(lambda start: jax.lax.scan(step, start, None, steps))(start)
    return {"params": params, "batch_stats": {}}, np.asarray(losses)


def test_it_predicts_the_image_and_nothing_else():
    with pytest.raises(ValueError, match="leave prediction and loss_in at 'x0'"):
        Regressor(denoiser=tiny.Denoiser(), prediction="eps", **FIELDS)
    assert isinstance(METHODS["regressor"], Regressor)
