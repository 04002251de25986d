"""DDIM inversion on Gaussian data, whose exact denoiser and exact paths are known."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.inversion import exact, inner_times, invert
from soda_jax.diffusion.samplers import Sampler, times, walk
from soda_jax.diffusion.schedules import Schedule
from soda_jax.editing.inversion import noise_of
from soda_jax.methods.soda import Guidance
from soda_jax.nn.rays import Rays
from tests import tiny
from tests.test_samplers import gaussian_denoiser
from tests.test_samplers_order import DEVIATION, FROM, MEAN, TO
from tests.test_samplers_order import exact as flow

SHAPE = (2, 8, 8, 1)
MOST = 80  # steps
SMOOTH = Schedule(name="cosine", steps=0)
DDIM = Sampler(clip_x0=False)
X = jnp.clip(MEAN + DEVIATION * jax.random.normal(jax.random.key(1), SHAPE), -1, 1)


@functools.cache
def program(schedule, kind, iterations):
    """(grid filled up to MOST steps, steps) -> noise of X, and what is drawn from it; compiled once."""
    denoise, sampler = gaussian_denoiser(schedule, MEAN, DEVIATION), Sampler(kind=kind, clip_x0=False)

    def run(grid, steps):
        noise = invert(denoise, schedule, X, grid, iterations=iterations, steps=steps)
        return noise, walk(denoise, schedule, sampler, noise, jax.random.key(0), grid, steps=steps)

    return jax.jit(run)


def there_and_back(schedule, grid, kind="ddim", iterations=3):
    """Noise of the images X and what is drawn from it."""
    return program(schedule, kind, iterations)(jnp.pad(grid, (0, MOST + 1 - len(grid))), len(grid) - 1)


def error_back(*arguments, **options):
    """The largest of the pixels that come back."""
    return float(jnp.abs(there_and_back(*arguments, **options)[1] - X).max())


def halves(errors):
    """Whether each error is half of the one before."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([1, 1], abs=0.35)


@pytest.mark.parametrize("name", ("inverted", "cosine", "linear"))
def test_inversion_and_sampling_return_the_image(name):
    """To rounding, however few the steps, from noise that is none of the image's."""
    schedule = Schedule(name=name)
    for steps in (1, 2, 5, 20):
        noise, found = there_and_back(schedule, inner_times(schedule, steps))
        np.testing.assert_allclose(found, X, atol=1e-5)
        assert jnp.abs(noise - X).max() > 0.1


def test_from_an_image_that_was_drawn_comes_the_noise_that_drew_it():
    schedule, key = Schedule(), jax.random.key(0)
    grid, denoise = inner_times(schedule, 5), gaussian_denoiser(schedule, MEAN, DEVIATION)
    noise = jax.random.normal(key, SHAPE)
    drawn = walk(denoise, schedule, DDIM, noise, key, grid)
    np.testing.assert_allclose(invert(denoise, schedule, drawn, grid), noise, atol=1e-5)


def test_the_explicit_form_errs_by_the_step():
    """Twice as many steps leave half the error of the way there and back; the fixed point leaves none."""
    grids = [jnp.linspace(FROM, TO, steps + 1) for steps in (10, 20, 40)]
    errors = [error_back(SMOOTH, grid, iterations=1) for grid in grids]
    assert halves(errors) and errors[-1] > 1e-3
    assert max(error_back(SMOOTH, grid) for grid in grids) < 1e-5


@pytest.mark.parametrize("iterations", (1, 3))
def test_both_forms_follow_the_probability_flow_to_first_order(iterations):
    grids = [jnp.linspace(FROM, TO, steps + 1) for steps in (10, 20, 40)]
    ends = [there_and_back(SMOOTH, grid, iterations=iterations)[0] for grid in grids]
    assert halves([float(jnp.abs(noise - flow(SMOOTH, X, TO, FROM)).max()) for noise in ends])


@pytest.mark.parametrize("kind", ("heun", "dpm++2m"))
def test_other_samplers_come_back_to_within_the_order_of_ddim(kind):
    errors = [error_back(SMOOTH, jnp.linspace(FROM, TO, steps + 1), kind) for steps in (20, 40, 80)]
    assert halves(errors) and errors[-1] > 1e-3


def test_from_pure_noise_the_image_does_not_come_back_as_well():
    """Why the grid leaves out t = 1, where alpha is almost 0."""
    schedule = Schedule(name="cosine")
    assert error_back(schedule, times(schedule, 5)) > 1e-4
    assert error_back(schedule, inner_times(schedule, 5)) < 1e-5


def test_a_grid_that_is_filled_up_is_walked_as_far_as_it_is_said():
    schedule = Schedule(name="cosine")
    grid, denoise = inner_times(schedule, 4), gaussian_denoiser(schedule, MEAN, DEVIATION)
    noise, found = there_and_back(schedule, grid)
    np.testing.assert_allclose(invert(denoise, schedule, X, grid), noise, atol=1e-5)
    np.testing.assert_allclose(
        walk(denoise, schedule, DDIM, noise, jax.random.key(0), grid), found, atol=1e-5
    )


def test_the_grid_is_that_of_one_step_more_without_its_first():
    for schedule in (Schedule(), Schedule(steps=0)):
        np.testing.assert_allclose(inner_times(schedule, 4), [0.8, 0.6, 0.4, 0.2, 0.0], atol=1e-6)
    assert len(inner_times(Schedule(steps=10), 9)) == 10
    with pytest.raises(ValueError, match=r"at most diffusion\.steps - 1 = 9 steps, found 10"):
        inner_times(Schedule(steps=10), 10)


def test_what_cannot_be_undone_is_left_out():
    churned = exact(Sampler(kind="heun", churn=3.0, steps=7))
    assert churned == Sampler(kind="heun", steps=7, clip_x0=False)
    assert exact(Sampler(kind="ddpm")) == exact(Sampler(eta=0.5)) == DDIM


def test_every_call_is_reported_and_one_is_the_least():
    seen, grid = [], inner_times(Schedule(), 3)
    given = (lambda xt, t: xt, Schedule(), X, grid)
    jax.block_until_ready(invert(*given, iterations=2, on_step=seen.append))
    jax.effects_barrier()
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="1 iteration a step or more, found 0"):
        invert(*given, iterations=0)


# A method ---------------------------------------------------------------------------------------------------------

METHOD = tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays())
Z = jax.random.normal(jax.random.key(5), (4, 3, 2))
X0 = jnp.asarray(tiny.batch(4)["target"], jnp.float32) / 127.5 - 1


@functools.cache
def edited():
    """Images inverted with Z, and drawn from that noise with Z, with -Z and by other cameras."""
    variables, cameras, guidance = tiny.variables(METHOD), tiny.cameras(4), Guidance(weight=0.5)
    grid, key = inner_times(METHOD.schedule, 5), jax.random.key(0)

    @jax.jit
    def drawn(noise, z, cameras):
        rest = {"guidance": guidance, "cameras": cameras, "noise": noise, "grid": grid}
        return METHOD.generate(variables, z, exact(Sampler()), key, X0.shape[1:], **rest)

    noise = jax.jit(
        lambda: noise_of(METHOD, variables, X0, Z, grid, iterations=6, guidance=guidance, cameras=cameras)
    )()
    return drawn(noise, Z, cameras), drawn(noise, -Z, cameras), drawn(noise, Z, tiny.cameras(4, seed=1))


def test_a_method_draws_the_image_from_its_noise():
    np.testing.assert_allclose(edited()[0], X0, atol=1e-3)


def test_another_latent_or_camera_edits_it():
    same, *others = edited()
    for other in others:
        assert jnp.abs(other - same).max() > 0.02
