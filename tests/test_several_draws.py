"""Several draws of time, noise and mask for each target: the mean of single ones, for one look at the source."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times
from soda_jax.methods.base import UNAVERAGED, stream, to_float
from soda_jax.methods.masking import draw_mask
from soda_jax.methods.noise_levels import NAME, NoiseLevels
from soda_jax.methods.soda import MASK, SEVERAL, TIME
from soda_jax.nn.rays import Rays
from tests import tiny

KEYS = jax.random.split(jax.random.key(1), 16)
THREE = jax.vmap(lambda key: jax.random.split(key, 3))(stream(KEYS, SEVERAL))
KINDS = {
    "plain": lambda **more: tiny.soda(encoder=tiny.Encoder(batch_norm=True), **more),
    "posed": lambda **more: tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays(scale=2.0), **more),
    "attends": lambda **more: tiny.with_sources(mask_all=0.5, **more),
}


def of_one_draw(method, draw, variables):
    """The loss of one of the three draws, of a source that is read for it alone; and the statistics."""
    batch, keys = tiny.batch(), THREE[:, draw]
    told, stats = method.read(variables, to_float(batch["source"]), batch, train=True)
    told = told.keeping(draw_mask(stream(keys, MASK), method.sections, method.mask_section, method.mask_all))
    times = draw_times(method.schedule, stream(THREE.ravel(), TIME), 3).reshape(16, 3)[:, draw]
    return jnp.mean(method.losses(variables, told, batch, keys, times, True)), stats


def step(loss, variables):
    """(loss, statistics), gradient."""
    params, stats = variables["params"], variables["batch_stats"]
    return jax.jit(jax.value_and_grad(lambda p: loss({"params": p, "batch_stats": stats}), has_aux=True))(
        params
    )


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_the_means_of_single_draws_and_the_source_is_read_once(kind):
    method = KINDS[kind](source_noise=0.0, draws=3)
    variables = tiny.variables(method)
    (loss, more), gradient = step(lambda v: method.loss(v, tiny.batch(), KEYS), variables)
    each = [step(lambda v, draw=draw: of_one_draw(method, draw, v), variables) for draw in range(3)]
    assert len({float(one[0][0]) for one in each}) == 3
    assert float(loss) == pytest.approx(np.mean([float(one[0][0]) for one in each]), rel=1e-5)
    mean = jax.tree.map(lambda *parts: sum(parts) / 3, *(one[1] for one in each))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), gradient, mean)
    jax.tree.map(np.testing.assert_array_equal, more["batch_stats"], each[0][0][1])


def test_without_training_there_is_one():
    several, single = tiny.soda(draws=3), tiny.soda()
    found, expected = (
        method.loss(tiny.variables(single), tiny.batch(), KEYS, train=False)[0]
        for method in (several, single)
    )
    assert float(found) == float(expected)


def test_adaptive_noise_levels_spread_the_draws_and_remember_each():
    levels = NoiseLevels(kind="resampled", bins=4)
    method = tiny.soda(noise_levels=levels, draws=3)
    variables = tiny.variables(method)
    keys = stream(THREE.ravel(), TIME)
    parts = np.floor((1 - levels.draw(variables, Schedule(steps=0), keys, 3).t.reshape(16, 3)) * 3)
    np.testing.assert_array_equal(parts, np.tile(np.arange(3), (16, 1)))  # q is uniform to begin with
    (_, more), _ = step(lambda v: method.loss(v, tiny.batch(), KEYS), variables)
    seen = np.asarray(more["batch_stats"][UNAVERAGED][NAME]["seen"])
    numbers = levels.draw(variables, method.schedule, keys, 3).bin
    counts = np.bincount(numbers, minlength=4)
    np.testing.assert_array_equal(seen, np.where(counts < 10, counts, 10 + counts % 10))


def test_fewer_than_one_draw_name_their_key():
    with pytest.raises(ValueError, match=r"diffusion\.draws must be 1 or more, found 0"):
        tiny.soda(draws=0)
