"""The samplers: what an exact denoiser must give, the grid, guidance, devices, progress."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from soda_jax.diffusion.process import convert, corrupt
from soda_jax.diffusion.sampler_steps import Sampler, update
from soda_jax.diffusion.samplers import guided, sample, times
from soda_jax.diffusion.schedules import Schedule

SHAPE = (2, 4, 4, 3)
MANY = (4, 64, 64, 1)  # enough pixels for statistics
SAMPLERS = {
    "ddim": Sampler(steps=12),
    "ddim eta": Sampler(steps=12, eta=0.6, clip_x0=False),
    "ddpm": Sampler(kind="ddpm", steps=12),
    "ddpm unclipped": Sampler(kind="ddpm", steps=12, clip_x0=False),
}


def oracle(schedule, x0):
    """A denoiser that knows the image."""
    return lambda xt, t: convert(x0, "x0", "eps", xt, schedule.logsnr(t))


def gaussian_denoiser(schedule, mean, deviation):
    """E[eps | xt] where x0 ~ N(mean, deviation^2)."""

    def denoise(xt, t):
        alpha, sigma = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
        return sigma * (xt - alpha * mean) / (alpha**2 * deviation**2 + sigma**2)

    return denoise


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("steps", (0, 1000), ids=("continuous", "1000 steps"))
def test_a_denoiser_that_knows_the_image_gives_the_image(sampler, steps, key):
    schedule = Schedule(steps=steps)
    x0 = jax.random.uniform(key, SHAPE, minval=-1, maxval=1)
    noise = jax.random.normal(jax.random.fold_in(key, 1), SHAPE)
    found = sample(oracle(schedule, x0), schedule, sampler, noise, key)
    np.testing.assert_allclose(found, x0, atol=2e-6)


@pytest.mark.parametrize("schedule_steps, steps", [(0, 7), (1000, 50), (1000, 1000), (1000, 7), (10, 10)])
def test_grid_starts_at_one_and_ends_at_zero(schedule_steps, steps):
    grid = np.asarray(times(Schedule(steps=schedule_steps), steps))
    assert grid.shape == (steps + 1,)
    assert grid[0] == 1
    assert grid[-1] == 0
    assert np.all(np.diff(grid) < 0)
    np.testing.assert_allclose(grid, np.linspace(1, 0, steps + 1), atol=0.51 / (schedule_steps or 1e6))


def test_denoiser_meets_every_time_of_the_grid_once():
    schedule, seen = Schedule(steps=20), []
    jax.block_until_ready(
        sample(
            lambda xt, t: (jax.debug.callback(lambda v: seen.append(float(v)), t[0]), xt)[1],
            schedule,
            Sampler(steps=5),
            jnp.ones((1, 2, 2, 1)),
            jax.random.key(0),
        )
    )
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(seen, reverse=True), [1, 0.8, 0.6, 0.4, 0.2], atol=1e-6)


@pytest.mark.parametrize("kind, steps", [("ddim", 100), ("ddpm", 250)])
def test_gaussian_data_come_back_with_their_mean_and_deviation(kind, steps, key):
    schedule, sampler = Schedule(name="cosine"), Sampler(kind=kind, steps=steps, clip_x0=False)
    denoise = gaussian_denoiser(schedule, 0.3, 0.4)
    found = sample(denoise, schedule, sampler, jax.random.normal(key, MANY), jax.random.fold_in(key, 1))
    assert float(found.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(found.std()) == pytest.approx(0.4, rel=0.05)


def moments_by_hand(schedule, sampler, mean, deviation) -> tuple[float, float]:
    """Mean and deviation that the walk should end with, in float64: each step is linear in its inputs."""
    logsnr = np.asarray(schedule.logsnr(times(schedule, sampler.steps)), np.float64)
    abar = 1 / (1 + np.exp(-logsnr))
    centre, variance = 0.0, 1.0
    for now, then in itertools.pairwise(abar):
        fresh = sampler.noise_share**2 * (1 - then) / (1 - now) * (1 - now / then)
        total = now * deviation**2 + 1 - now
        to_x0, to_eps = np.sqrt(now) * deviation**2 / total, np.sqrt(1 - now) / total
        slope = np.sqrt(then) * to_x0 + np.sqrt(1 - then - fresh) * to_eps
        centre = np.sqrt(then) * mean + slope * (centre - np.sqrt(now) * mean)
        variance = slope**2 * variance + fresh
    return centre, np.sqrt(variance)


@pytest.mark.parametrize("name", ("inverted", "linear"))
@pytest.mark.parametrize(
    "sampler", [Sampler(steps=10, clip_x0=False), SAMPLERS["ddim eta"]], ids=("eta 0", "eta")
)
def test_gaussian_data_after_few_steps_are_what_the_algebra_says(sampler, name, key):
    """Few steps lose variance (inverted starts its last one far from clean), but just this much."""
    schedule = Schedule(name=name)
    denoise = gaussian_denoiser(schedule, 0.3, 0.4)
    found = sample(denoise, schedule, sampler, jax.random.normal(key, MANY), jax.random.fold_in(key, 1))
    mean, deviation = moments_by_hand(schedule, sampler, 0.3, 0.4)
    assert float(found.mean()) == pytest.approx(mean, abs=0.01)
    assert float(found.std()) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("eta", (0.0, 0.5, 1.0))
def test_one_step_keeps_the_marginal(eta, key):
    """From a true xt and the true x0, (4) must give the right alpha_s and sigma_s, whatever eta."""
    schedule, shape = Schedule(name="cosine"), (1, 64, 64, 4)
    eps, fresh = jax.random.normal(key, (2, *shape))
    x0 = jnp.full(shape, 0.5)
    xt = corrupt(schedule, x0, eps, jnp.asarray([0.6]))
    t, s = schedule.logsnr(jnp.asarray(0.6)), schedule.logsnr(jnp.asarray(0.4))
    found = update(Sampler(eta=eta), xt, eps, fresh, t, s)
    alpha, sigma = schedule.alpha(jnp.asarray(0.4)), schedule.sigma(jnp.asarray(0.4))
    assert float(found.mean()) == pytest.approx(0.5 * float(alpha), abs=0.02)
    assert float(found.std()) == pytest.approx(float(sigma), rel=0.02)


def test_ddpm_is_ddim_with_eta_one(key):
    schedule, noise = Schedule(), jax.random.normal(key, SHAPE)
    denoise = gaussian_denoiser(schedule, 0.1, 0.5)
    ddpm = sample(denoise, schedule, Sampler(kind="ddpm", steps=4), noise, key)
    ddim = sample(denoise, schedule, Sampler(eta=1.0, steps=4), noise, key)
    np.testing.assert_array_equal(ddpm, ddim)


def test_only_fresh_noise_depends_on_the_key(key):
    schedule, noise = Schedule(), jax.random.normal(key, SHAPE)
    denoise = gaussian_denoiser(schedule, 0.0, 0.5)

    def runs(sampler):
        run = jax.jit(lambda number: sample(denoise, schedule, sampler, noise, jax.random.key(number)))
        return [np.asarray(run(number)) for number in (1, 1, 2)]

    still = runs(SAMPLERS["ddim"])
    np.testing.assert_array_equal(still[0], still[2])
    first, second, other = runs(SAMPLERS["ddpm"])
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0.1


def test_clipping_bounds_the_image(key):
    schedule, noise = Schedule(), jax.random.normal(key, SHAPE)
    denoise = oracle(schedule, jnp.full(SHAPE, 3.0))
    clipped = sample(denoise, schedule, Sampler(steps=5), noise, key)
    np.testing.assert_allclose(clipped, 1.0, atol=1e-6)
    free = sample(denoise, schedule, Sampler(steps=5, clip_x0=False), noise, key)
    np.testing.assert_allclose(free, 3.0, atol=1e-5)


def test_guidance_formula(key):
    eps_with, eps_without = jax.random.normal(key, (2, *SHAPE))
    np.testing.assert_array_equal(guided(eps_with, eps_without, 0.0), eps_with)
    np.testing.assert_allclose(guided(eps_with, eps_without, -1.0), eps_without, atol=1e-6)
    found = guided(jnp.full(SHAPE, 2.0), jnp.full(SHAPE, 1.0), 0.3)
    np.testing.assert_allclose(found, 1.3 * 2 - 0.3, rtol=1e-6)


@pytest.mark.parametrize("sampler", [SAMPLERS["ddim"], SAMPLERS["ddpm"]], ids=("ddim", "ddpm"))
def test_eight_devices_sample_what_one_samples(sampler, key):
    schedule = Schedule()
    run = jax.jit(lambda x, k: sample(gaussian_denoiser(schedule, 0.2, 0.3), schedule, sampler, x, k))
    noise = jax.random.normal(key, (16, 4, 4, 3))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    found = run(jax.device_put(noise, sharding), jax.device_put(key, NamedSharding(mesh, PartitionSpec())))
    assert found.sharding.is_equivalent_to(sharding, found.ndim)
    np.testing.assert_allclose(found, run(noise, key), atol=2e-6)


@pytest.mark.parametrize("devices", (1, 8))
def test_progress_reports_each_step_once(devices, key):
    schedule, seen = Schedule(), []
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    noise = jax.device_put(jnp.ones((8, 2, 2, 1)), NamedSharding(mesh, PartitionSpec("data")))
    run = jax.jit(lambda x: sample(lambda xt, t: xt, schedule, Sampler(steps=6), x, key, on_step=seen.append))
    jax.block_until_ready(run(noise))
    jax.effects_barrier()
    assert sorted(seen) == list(range(6))
    assert all(type(step) is int for step in seen)


def test_wrong_values_name_their_key():
    with pytest.raises(ValueError, match=r"samples\.sampler: expected one of .*found 'euler'"):
        Sampler(kind="euler")
    with pytest.raises(ValueError, match=r"samples\.steps: expected 1 or more, found 0"):
        Sampler(steps=0)
    with pytest.raises(ValueError, match=r"samples\.eta: expected 0 to 1, found 1\.5"):
        Sampler(eta=1.5)
    with pytest.raises(ValueError, match=r"samples\.steps: expected at most diffusion\.steps = 20, found 50"):
        times(Schedule(steps=20), 50)
