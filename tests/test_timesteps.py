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


@pytest.mark.parametrize("steps", (0, 12))
def test_strata_are_equal_parts_in_turn_and_together_uniform(steps, key):
    t = np.asarray(draw_times(Schedule(steps=steps), jax.random.split(key, 4000), strata=4)).reshape(1000, 4)
    lowest = [t[:, part].min() for part in range(4)]
    highest = [t[:, part].max() for part in range(4)]
    if steps:
        found = np.unique(np.round(t * 12), axis=None, return_counts=True)
        assert sorted(lowest) == pytest.approx([1 / 12, 4 / 12, 7 / 12, 10 / 12])
        assert sorted(highest) == pytest.approx([3 / 12, 6 / 12, 9 / 12, 1])
        assert np.all(np.abs(found[1] - 4000 / 12) < 5 * np.sqrt(4000 / 12))
    else:
        assert all(high - low < 0.25 for low, high in zip(lowest, highest, strict=True))
        assert sorted(highest)[:3] < sorted(lowest)[1:] and min(lowest) > 0 and max(highest) <= 1
        assert np.all(np.abs(np.histogram(t, bins=20, range=(0, 1))[0] - 200) < 5 * np.sqrt(200))
