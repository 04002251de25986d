"""How training draws t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times, spread


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


def test_strata_are_equal_parts_in_turn(key):
    u = np.asarray(spread(jax.random.split(key, 4000), 4)).reshape(1000, 4)
    np.testing.assert_array_equal(np.floor(u * 4), np.tile(np.arange(4), (1000, 1)))
    assert np.all(np.abs(np.histogram(u, bins=20, range=(0, 1))[0] - 200) < 5 * np.sqrt(200))


def test_times_of_strata_are_those_of_their_parts_and_as_frequent_as_free_ones(key):
    keys = jax.random.split(key, 4000)
    np.testing.assert_allclose(draw_times(Schedule(steps=0), keys, 4), 1 - spread(keys, 4))
    steps = np.round(np.asarray(draw_times(Schedule(steps=12), keys, 4)) * 12).reshape(1000, 4)
    assert [list(np.unique(part)) for part in steps.T] == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    counts = np.unique(steps, return_counts=True)[1]
    assert np.all(np.abs(counts - 4000 / 12) < 5 * np.sqrt(4000 / 12))


def test_rounding_never_reaches_one_and_so_no_time_is_zero():
    keys = jax.random.split(jax.random.key(1), 2**20)
    assert float(jax.random.uniform(keys[-1])) > 0.97  # (2^20 - 1 + that) / 2^20 is rounded to 1
    assert float(jnp.max(spread(keys, 2**20))) < 1
    assert float(jnp.min(draw_times(Schedule(steps=0), keys, 2**20))) > 0
