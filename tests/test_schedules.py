"""The schedules against spec/soda.md's table, against each other, and their identities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import LOGSNR_MAX, LOGSNR_MIN, Schedule, betas, logsnr_table

NAMES = ("inverted", "cosine", "linear", "constant", "edm")
LENGTHS = (0, 20, 1000)
EVERY = list(itertools.product(NAMES, LENGTHS))

# Log-SNR for T = 1000, spec 1.10: step, linear, cosine, inverted.
TABLE = [
    (1, 9.21, 10.09, 3.88),
    (100, 2.16, 3.55, 1.35),
    (250, 0.10, 1.71, 0.68),
    (500, -2.46, -0.02, -0.02),
    (750, -5.70, -1.78, -0.72),
    (900, -8.20, -3.70, -1.40),
    (990, -9.92, -8.32, -2.82),
    (999, -10.10, -12.93, -4.39),
    (1000, -10.12, -19.84, -11.31),
]
MIDDLE_SHARE = {"linear": 0.38, "cosine": 0.60, "inverted": 0.95}  # steps with 0.1 <= abar <= 0.9


def grid(schedule: Schedule, count: int = 1000):
    steps = schedule.steps or count
    return jnp.arange(steps + 1) / steps


@pytest.mark.parametrize("step, linear, cosine, inverted", TABLE)
def test_logsnr_is_the_table_of_the_spec(step, linear, cosine, inverted):
    t = jnp.asarray(step / 1000)
    for name, expected in (("linear", linear), ("cosine", cosine), ("inverted", inverted)):
        found = float(Schedule(name=name, steps=1000).logsnr(t))
        assert found == pytest.approx(expected, abs=0.0051), name


@pytest.mark.parametrize("name", MIDDLE_SHARE)
def test_share_of_middle_noise_levels_is_the_table_of_the_spec(name):
    schedule = Schedule(name=name)
    abar = np.asarray(schedule.alpha(grid(schedule)))[1:] ** 2
    assert np.mean((abar >= 0.1) & (abar <= 0.9)) == pytest.approx(MIDDLE_SHARE[name], abs=0.0051)


@pytest.mark.parametrize("name, steps", EVERY)
def test_alpha_and_sigma_are_the_two_sides_of_a_unit(name, steps):
    schedule = Schedule(name=name, steps=steps)
    t = grid(schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=3e-7)
    np.testing.assert_allclose(2 * jnp.log(alpha / sigma), schedule.logsnr(t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, steps", EVERY)
def test_logsnr_falls_from_clean_to_noise(name, steps):
    schedule = Schedule(name=name, steps=steps)
    logsnr = np.asarray(schedule.logsnr(grid(schedule)))
    assert np.all(np.diff(logsnr) < 0)
    assert logsnr[0] == LOGSNR_MAX
    assert LOGSNR_MIN <= logsnr[-1] < -5
    assert logsnr.dtype == np.float32


@pytest.mark.parametrize("name, steps", EVERY)
def test_time_zero_is_clean_in_float32(name, steps):
    schedule = Schedule(name=name, steps=steps)
    zero = jnp.zeros(())
    assert schedule.alpha(zero) == 1
    assert schedule.sigma(zero) < 1e-8


@pytest.mark.parametrize("name", NAMES)
def test_many_steps_approach_continuous_time(name):
    steps = 200_000
    t = jnp.asarray([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    fine = Schedule(name=name, steps=steps).logsnr(t)
    np.testing.assert_allclose(fine, Schedule(name=name, steps=0).logsnr(t), atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_table_is_the_product_of_one_minus_beta(name):
    abar = np.cumprod(1 - betas(name, 50))
    np.testing.assert_allclose(logsnr_table(name, 50)[1:], np.log(abar / (1 - abar)), rtol=1e-6, atol=1e-6)
    assert betas(name, 50).max() <= 0.999


def test_constant_noise_takes_the_same_share_of_the_image_in_each_of_its_steps():
    np.testing.assert_allclose(betas("constant", 1000), 0.008)
    last = float(Schedule(name="constant").alpha(jnp.ones(())) ** 2)
    assert last == pytest.approx(0.992**1000, rel=1e-4)


def test_edm_in_18_steps_is_the_table_of_the_spec():
    """sigma / alpha of the levels 1 .. 18 (spec A5); of one level, it is the noisiest."""
    expected = [0.00200, 0.00753, 0.02293, 0.05995, 0.13952, 0.29644, 0.58535, 1.0882, 1.9233, 3.2568]
    expected += [5.3152, 8.4009, 12.910, 19.352, 28.375, 40.786, 57.586, 80.0]
    schedule = Schedule(name="edm", steps=18)
    t = jnp.arange(1, 19) / 18
    np.testing.assert_allclose(schedule.sigma(t) / schedule.alpha(t), expected, rtol=4e-4)
    only = Schedule(name="edm", steps=1)
    assert float(only.sigma(jnp.ones(())) / only.alpha(jnp.ones(()))) == pytest.approx(80, rel=1e-4)


def test_linear_in_1000_steps_is_that_of_the_spec():
    """abar at t = 11 and sigma at 1, 11, 21 (spec A5, C2): the clean image is step 0."""
    t = jnp.asarray([1, 11, 21]) / 1000
    schedule = Schedule(name="linear", steps=1000)
    np.testing.assert_allclose(schedule.sigma(t), [0.0100, 0.0468, 0.0792], atol=6e-5)
    assert float(schedule.alpha(t)[1] ** 2) == pytest.approx(0.99781, abs=6e-6)


def test_inverted_undoes_cosine():
    """abar_inverted is the inverse function of the cosine curve, apart from the normalisation at t = 0."""
    t = jnp.linspace(0.02, 0.98, 33)
    abar = Schedule(name="inverted", steps=0).alpha(t) ** 2
    u = np.pi / 2 * (abar + 0.008) / 1.008
    np.testing.assert_allclose(jnp.cos(u) ** 2, t, atol=1e-5)


def test_times_off_the_grid_are_read_as_the_nearest_step():
    schedule = Schedule(steps=10)
    near = schedule.logsnr(jnp.asarray([0.28, 0.3, 0.32]))
    assert np.unique(near).size == 1
    assert schedule.logsnr(jnp.asarray(0.36)) == schedule.logsnr(jnp.asarray(0.4))


@pytest.mark.parametrize("steps", (0, 1000))
def test_shapes_and_jit(steps):
    schedule = Schedule(steps=steps)
    t = jnp.linspace(0.1, 1.0, 6).reshape(2, 3)
    logsnr = schedule.logsnr(t)
    assert logsnr.shape == (2, 3)
    np.testing.assert_allclose(jax.jit(schedule.logsnr)(t), logsnr, rtol=1e-5)


def test_wrong_values_name_their_key():
    with pytest.raises(ValueError, match=r"diffusion\.schedule: expected one of .*found 'inverse'"):
        Schedule(name="inverse")
    with pytest.raises(ValueError, match=r"diffusion\.steps: expected 0 \(continuous\) or more, found -1"):
        Schedule(steps=-1)
