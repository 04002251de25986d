"""Heun, churn and DPM-Solver++(2M) on Gaussian data, whose exact denoiser and exact paths are known."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.sampler_steps import Sampler, Step, churned
from soda_jax.diffusion.samplers import guided, sample, walk
from soda_jax.diffusion.schedules import Schedule
from tests.test_samplers import MANY, SHAPE, gaussian_denoiser, oracle

MEAN, DEVIATION = 0.3, 0.4
FROM, TO = (
    0.8,
    0.2,
)  # of t: between them log-SNR is smooth, and ten steps are few enough to err and many enough to tell
ORDERS = {"ddim": 1, "heun": 2, "dpm++2m": 2}


def exact(schedule, xt, t, s):
    """Where the probability flow of N(MEAN, DEVIATION^2) takes xt: standardised, nothing moves."""

    def moments(time):
        alpha, sigma = (float(f(jnp.asarray(time))) for f in (schedule.alpha, schedule.sigma))
        return alpha * MEAN, math.sqrt(alpha**2 * DEVIATION**2 + sigma**2)

    (mean_t, deviation_t), (mean_s, deviation_s) = moments(t), moments(s)
    return mean_s + deviation_s * (xt - mean_t) / deviation_t


def error(kind, schedule, steps):
    """Of a walk between FROM and TO, the largest of some pixels."""
    xt = jnp.linspace(-2.0, 2.0, 9).reshape(1, 3, 3, 1)
    grid = jnp.linspace(FROM, TO, steps + 1)
    sampler = Sampler(kind=kind, steps=steps, clip_x0=False)
    denoise = gaussian_denoiser(schedule, MEAN, DEVIATION)
    found = walk(denoise, schedule, sampler, xt, jax.random.key(0), grid)
    return float(jnp.abs(found - exact(schedule, xt, FROM, TO)).max())


@pytest.mark.parametrize("name", ("cosine", "linear", "inverted"))
@pytest.mark.parametrize("kind", ORDERS)
def test_the_error_falls_as_the_order_says(kind, name):
    """Twice as many steps leave half the error at first order, a quarter at second."""
    errors = [error(kind, Schedule(name=name, steps=0), steps) for steps in (10, 20, 40)]
    assert errors[-1] > 3e-6  # rounding does not decide
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[kind], abs=0.35)


def test_second_order_is_worth_its_calls():
    """At the same number of network calls."""
    schedule = Schedule(name="cosine", steps=0)
    assert error("heun", schedule, 10) < 0.5 * error("ddim", schedule, 20)
    assert error("dpm++2m", schedule, 20) < 0.2 * error("ddim", schedule, 20)


@pytest.mark.parametrize(("kind", "churn"), [("heun", 0.0), ("heun", 5.0), ("dpm++2m", 0.0)])
@pytest.mark.parametrize("steps", (0, 1000), ids=("continuous", "1000 steps"))
def test_a_denoiser_that_knows_the_image_gives_the_image(kind, steps, churn, key):
    for name in ("inverted", "cosine", "linear"):
        schedule = Schedule(name=name, steps=steps)
        x0 = jax.random.uniform(key, SHAPE, minval=-1, maxval=1)
        noise = jax.random.normal(jax.random.fold_in(key, 1), SHAPE)
        sampler = Sampler(kind=kind, steps=9, churn=churn)
        found = sample(oracle(schedule, x0), schedule, sampler, noise, key)
        np.testing.assert_allclose(found, x0, atol=5e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(kind="heun", steps=40, clip_x0=False),
        Sampler(kind="dpm++2m", steps=40, clip_x0=False),
        Sampler(kind="heun", steps=60, churn=20.0, clip_x0=False),
    ],
    ids=("heun", "2m", "churn"),
)
def test_gaussian_data_come_back_with_their_mean_and_deviation(sampler, key):
    schedule = Schedule(name="cosine")
    denoise = gaussian_denoiser(schedule, MEAN, DEVIATION)
    found = sample(denoise, schedule, sampler, jax.random.normal(key, MANY), jax.random.fold_in(key, 1))
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(DEVIATION, rel=0.05)


def test_one_step_is_ddim_whatever_the_kind(key):
    """There is no step that could be corrected, and no step before."""
    schedule, noise = Schedule(name="cosine"), jax.random.normal(key, SHAPE)
    denoise = gaussian_denoiser(schedule, 0.1, 0.5)
    ddim, *others = (
        sample(denoise, schedule, Sampler(kind=kind, steps=1), noise, key)
        for kind in ("ddim", "heun", "dpm++2m")
    )
    for other in others:
        np.testing.assert_allclose(other, ddim, atol=1e-5)


@pytest.mark.parametrize("name", ["inverted", "edm"])
def test_calls_of_the_network(name, key):
    """EDM's 18 steps are 35 calls: on its schedule the first step is corrected as well."""
    for kind in ("ddim", "heun", "dpm++2m"):
        seen = []

        def denoise(xt, t, seen=seen):
            jax.debug.callback(lambda v: seen.append(float(v)), t[0])
            return xt

        sampler = Sampler(kind=kind, steps=5)
        schedule = Schedule(name=name)
        jax.block_until_ready(sample(denoise, schedule, sampler, jnp.ones((1, 2, 2, 1)), key))
        jax.effects_barrier()
        heun = {"inverted": 8, "edm": 9}[name]
        assert len(seen) == sampler.calls(schedule) == {"heun": heun}.get(kind, 5)


# Churn ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", (0, 1000))
def test_churn_keeps_the_marginal_and_knows_its_time(steps, key):
    """A true xt becomes a true sample of the later time; u grows by 1 + gamma, in T steps to the next time."""
    schedule, sampler = Schedule(name="cosine", steps=steps), Sampler(kind="heun", steps=10, churn=3.0)
    t, x0 = jnp.asarray(0.5), 0.5
    eps = jax.random.normal(key, (1, 64, 64, 4))
    xt = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
    step = Step(jnp.asarray(1), t, jnp.asarray(0.4), jax.random.fold_in(key, 1))
    found, later = churned(schedule, sampler, xt, step)
    u, grown = (float(schedule.sigma(time) / schedule.alpha(time)) for time in (t, later))
    assert 1.3 * u * (1 - 1e-5) <= grown <= 1.3 * u * (1.005 if steps else 1 + 1e-5)
    assert float(found.mean()) == pytest.approx(x0 * float(schedule.alpha(later)), abs=0.02)
    assert float(found.std()) == pytest.approx(float(schedule.sigma(later)), rel=0.02)


def test_churn_is_bounded_stays_in_its_range_and_spares_pure_noise(key):
    schedule, xt = Schedule(name="cosine", steps=0), jax.random.normal(key, SHAPE)

    def grown(t, **changes):
        sampler = Sampler(kind="heun", steps=10, **{"churn": 100.0, **changes})
        x, later = churned(schedule, sampler, xt, Step(jnp.asarray(1), jnp.asarray(t), jnp.asarray(0.0), key))
        u = [float(schedule.sigma(time) / schedule.alpha(time)) for time in (jnp.asarray(t), later)]
        return u[1] / u[0], bool(jnp.allclose(x, xt, atol=1e-6))

    assert grown(0.5)[0] == pytest.approx(math.sqrt(2), rel=1e-4)
    assert not grown(0.5)[1]
    for still in (grown(1.0), grown(0.5, churn_range=(5.0, 50.0)), grown(0.9, churn_range=(0.0, 1.0))):
        assert still == (pytest.approx(1.0, rel=1e-6), True)


@pytest.mark.parametrize("name", ("inverted", "cosine", "linear"))
def test_time_of_is_the_inverse_of_logsnr(name):
    t = jnp.linspace(0.02, 0.98, 25)
    smooth, steps = Schedule(name=name, steps=0), Schedule(name=name, steps=1000)
    np.testing.assert_allclose(smooth.time_of(smooth.logsnr(t)), t, atol=2e-6)
    whole = jnp.round(t * 1000) / 1000
    np.testing.assert_allclose(steps.time_of(steps.logsnr(whole)), whole, atol=1e-6)
    np.testing.assert_allclose(steps.time_of(steps.logsnr(whole) - 1e-3), whole + 0.001, atol=1e-6)
    assert float(steps.time_of(jnp.asarray(-1e9))) == 1.0


# Guidance ---------------------------------------------------------------------------------------------------------


def test_rescaling_puts_the_deviation_back(key):
    eps_with, eps_without = jax.random.normal(key, (2, *SHAPE))
    plain = guided(eps_with, eps_without, 4.0)
    full, half = (guided(eps_with, eps_without, 4.0, share) for share in (1.0, 0.5))
    deviations = [np.asarray(x.std((1, 2, 3))) for x in (eps_with, plain, full)]
    assert np.all(deviations[1] > 1.5 * deviations[0])
    np.testing.assert_allclose(deviations[2], deviations[0], rtol=1e-5)
    np.testing.assert_allclose(half, (plain + full) / 2, atol=1e-5)


def test_each_example_may_have_its_weight(key):
    eps_with, eps_without = jax.random.normal(key, (2, *SHAPE))
    both = guided(eps_with, eps_without, jnp.asarray([0.0, 2.0]))
    np.testing.assert_array_equal(both[0], eps_with[0])
    np.testing.assert_allclose(both[1], guided(eps_with, eps_without, 2.0)[1], rtol=1e-6)


def test_wrong_values_name_their_key():
    with pytest.raises(ValueError, match=r"samples\.churn=1\.0 is for samples\.sampler='heun', found 'ddim'"):
        Sampler(churn=1.0)
    for wrong in ({"churn": -1.0}, {"churn_noise": 0.0}, {"churn_range": (2.0, 1.0)}):
        with pytest.raises(ValueError, match=r"samples\.churn must be 0 or more"):
            Sampler(kind="heun", **wrong)
