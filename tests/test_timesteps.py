"""How training draws t."""

import jax
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times


def test_every_step_is_drawn_equally_often(key):
    t = draw_times(Schedule(steps=10), jax.random.split(key, 5000))
    steps, counts = np.unique(np.round(np.asarray(t) * 10), return_counts=True)
    assert list(steps) == list(range(1, 11))
    assert np.all(np.abs(counts - 500) < 5 * np.sqrt(500 * 0.9))


def test_times_are_whole_steps(key):
    t = np.asarray(draw_times(Schedule(steps=1000), jax.random.split(key, 300)))
    np.testing.assert_allclose(t * 1000, np.round(t * 1000), atol=1e-3)
    assert t.dtype == np.float32


def test_continuous_times_are_uniform_and_never_zero(key):
    t = np.asarray(draw_times(Schedule(steps=0), jax.random.split(key, 4000)))
    assert t.min() > 0
    assert t.max() <= 1
    deciles = np.histogram(t, bins=10, range=(0, 1))[0]
    assert np.all(np.abs(deciles - 400) < 5 * np.sqrt(400 * 0.9))


@pytest.mark.parametrize("steps", (0, 1000))
def test_a_draw_depends_on_its_own_key_alone(steps, key):
    keys = jax.random.split(key, 8)
    schedule = Schedule(steps=steps)
    whole = draw_times(schedule, keys)
    halves = np.concatenate([draw_times(schedule, keys[:4]), draw_times(schedule, keys[4:])])
    np.testing.assert_array_equal(whole, halves)
    assert np.unique(whole).size == 8
