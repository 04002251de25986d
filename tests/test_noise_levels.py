"""Adaptive noise levels: the same mean for every density, a schedule that falls, and the density of least variance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import UNAVERAGED
from soda_jax.methods.noise_levels import HISTORY, NAME, NoiseLevels, inverse, remembered
from soda_jax.training.state import ema_variables, variables
from tests import tiny

LEARNED, RESAMPLED = NoiseLevels(kind="learned", bins=7), NoiseLevels(kind="resampled", bins=7)
KEYS = jax.random.split(jax.random.key(5), 40_000)


def state_of(levels, seed=0):
    """Variables with an uneven density."""
    rng = np.random.default_rng(seed)
    if levels.kind == "learned":
        logits = jnp.asarray(rng.normal(size=levels.bins), jnp.float32)
        return {"params": {NAME: {"logits": logits}}, "batch_stats": {}}
    losses = jnp.asarray(rng.uniform(0.1, 4.0, (levels.bins, 1)) * np.ones((1, HISTORY)), jnp.float32)
    memory = {"losses": losses, "seen": jnp.full(levels.bins, HISTORY, jnp.int32)}
    return {"params": {}, "batch_stats": {UNAVERAGED: {NAME: memory}}}


def loss_at(t):
    """Any function of t, steep at both ends."""
    return jnp.exp(3 * t) + 1 / (0.05 + t)


@pytest.mark.parametrize("levels", [LEARNED, RESAMPLED], ids=["learned", "resampled"])
@pytest.mark.parametrize("schedule", [Schedule(steps=0), Schedule(steps=20)], ids=["continuous", "20 steps"])
def test_the_weighted_loss_has_the_mean_of_the_uniform_one(levels, schedule):
    """20 steps share 7 bins unevenly, which (1) must not mind."""
    drawn = levels.draw(state_of(levels), schedule, KEYS)
    values = np.asarray(loss_at(drawn.t) * drawn.weight, np.float64)
    grid = np.arange(1, 21) / 20 if schedule.steps else (np.arange(20_000) + 0.5) / 20_000
    expected = float(np.mean(np.asarray(loss_at(jnp.asarray(grid)), np.float64)))
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values))
    unweighted = float(jnp.mean(loss_at(drawn.t)))
    assert abs(unweighted - expected) > 8 * values.std() / np.sqrt(len(values)), "the weights do nothing here"


@pytest.mark.parametrize("levels", [LEARNED, RESAMPLED], ids=["learned", "resampled"])
def test_times_fall_into_bins_as_the_density_says(levels):
    drawn = levels.draw(state_of(levels), Schedule(steps=0), KEYS)
    q = np.asarray(levels.density(state_of(levels)))
    assert q.mean() == pytest.approx(1, abs=1e-5) and q.max() > 2 * q.min()
    share = np.bincount(np.asarray(drawn.bin), minlength=7) / len(KEYS)
    assert np.all(np.abs(share - q / 7) < 5 * np.sqrt(q / 7 / len(KEYS)))
    np.testing.assert_array_less(np.abs(np.asarray(drawn.t) * 7 - np.asarray(drawn.bin) - 0.5), 0.5 + 1e-5)
    np.testing.assert_allclose(drawn.weight, 1 / q[np.asarray(drawn.bin)], rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_learned_schedule_falls_and_keeps_its_ends(seed):
    logits = 4 * jnp.asarray(np.random.default_rng(seed).normal(size=7), jnp.float32)
    q = LEARNED.density({"params": {NAME: {"logits": logits}}, "batch_stats": {}})
    u = jnp.linspace(0.0, 1.0, 1001)
    t, _ = inverse(q, u)
    logsnr = Schedule(name="cosine", steps=0).logsnr(t)
    assert np.all(np.diff(np.asarray(t)) > 0) and np.all(np.diff(np.asarray(logsnr)) < 0)
    assert float(t[0]) == pytest.approx(0, abs=1e-6) and float(t[-1]) == pytest.approx(1, abs=1e-6)


def second_moment(logits, per_bin):
    """E of the square of the weighted loss, by hand, for a loss that is one number in each bin."""
    return jnp.mean(jnp.square(per_bin) / (7 * jax.nn.softmax(logits)))


def test_the_gradient_of_the_learned_one_is_that_of_the_variance():
    per_bin = jnp.asarray([1.0, 5.0, 2.0, 0.5, 3.0, 1.0, 4.0])
    start = state_of(LEARNED)["params"]
    drawn = LEARNED.draw({"params": start, "batch_stats": {}}, Schedule(steps=0), KEYS)
    losses = per_bin[drawn.bin]

    def term(params):
        return LEARNED.learn({"params": params, "batch_stats": {}}, drawn, losses)[0]

    found = jax.grad(term)(start)[NAME]["logits"]
    logits = start[NAME]["logits"]
    expected = jax.grad(second_moment)(logits, per_bin) / second_moment(logits, per_bin)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert float(term(start)) == 0 and float(jnp.max(jnp.abs(expected))) > 0.2


def test_both_come_to_the_density_of_least_variance():
    per_bin = jnp.asarray([1.0, 5.0, 2.0, 0.5, 3.0, 1.0, 4.0])
    best = np.asarray(per_bin / jnp.mean(per_bin))
    params = {NAME: {"logits": jnp.zeros(7)}}

    @jax.jit
    def learn(params, keys):
        drawn = LEARNED.draw({"params": params, "batch_stats": {}}, Schedule(), keys)
        grads = jax.grad(
            lambda p: LEARNED.learn({"params": p, "batch_stats": {}}, drawn, per_bin[drawn.bin])[0]
        )(params)
        return jax.tree.map(lambda p, g: p - g, params, grads)

    for number in range(200):
        params = learn(params, jax.random.split(jax.random.key(number), 256))
    np.testing.assert_allclose(LEARNED.density({"params": params}), best, atol=0.15)

    stats = RESAMPLED.init()[1]
    assert np.all(np.asarray(RESAMPLED.density({"batch_stats": stats})) == 1)
    drawn = RESAMPLED.draw({"batch_stats": stats}, Schedule(), KEYS[:2000])
    stats = RESAMPLED.learn({"batch_stats": stats}, drawn, per_bin[drawn.bin])[1]
    found = RESAMPLED.density({"batch_stats": stats})
    np.testing.assert_allclose(found, 0.999 * best + 0.001, rtol=1e-5)


def test_the_last_losses_of_each_bin_are_kept_in_order():
    """Against a list for each bin, over batches that overflow a bin and ones that leave it empty."""
    rng, kept = np.random.default_rng(0), [[] for _ in range(3)]
    memory = {"losses": jnp.zeros((3, 4)), "seen": jnp.zeros(3, jnp.int32)}
    for batch in range(30):
        number = rng.choice(3, size=9, p=[0.8, 0.2, 0.0] if batch < 20 else [0.2, 0.3, 0.5])
        losses = rng.uniform(size=9)
        memory = remembered(memory, jnp.asarray(number, jnp.int32), jnp.asarray(losses, jnp.float32))
        for row, loss in zip(number, losses, strict=True):
            kept[row] = [*kept[row], loss][-4:]
        for row, expected in enumerate(kept):
            found = sorted(np.asarray(memory["losses"][row][: len(expected)]))
            np.testing.assert_allclose(found, sorted(expected), rtol=1e-6)
            assert int(memory["seen"][row]) < 8 and (int(memory["seen"][row]) >= 4) == (len(expected) == 4)


@pytest.mark.parametrize("kind", ["learned", "resampled"])
def test_a_step_of_soda_learns_them_and_averages_do_not_touch_them(kind):
    method = tiny.soda(noise_levels=NoiseLevels(kind=kind, bins=4), encoder=tiny.Encoder(batch_norm=True))
    state = tiny.state(method)
    for _ in range(4):
        state, metrics = tiny.step(method, 2)(state, tiny.batch())
    assert 0 < float(metrics["t"]) <= 1 and bool(metrics["finite"])
    before = method.init(jax.random.key(0), tiny.spec(tiny.batch()))
    if kind == "learned":
        assert np.any(np.asarray(variables(state)["params"][NAME]["logits"]))
    else:
        memory = variables(state)["batch_stats"][UNAVERAGED][NAME]
        assert int(jnp.sum(memory["seen"])) > 0 and UNAVERAGED not in state.ema_batch_stats
        assert UNAVERAGED in ema_variables(state)["batch_stats"]
    alone = tiny.soda(encoder=tiny.Encoder(batch_norm=True)).init(jax.random.key(0), tiny.spec(tiny.batch()))
    for name in ("encoder", "denoiser"):
        jax.tree.map(np.testing.assert_array_equal, before["params"][name], alone["params"][name])
    assert set(method.encode(variables(state), tiny.batch()["source"])) == {"z", "pooled"}


def test_without_training_the_loss_is_that_of_uniform_times():
    plain, method = tiny.soda(), tiny.soda(noise_levels=replace(LEARNED, bins=4))
    found = method.loss(tiny.variables(method), tiny.batch(), KEYS[:16], train=False)[0]
    expected = plain.loss(tiny.variables(method), tiny.batch(), KEYS[:16], train=False)[0]
    assert float(found) == float(expected)


def test_fewer_than_two_bins_name_their_key():
    with pytest.raises(ValueError, match=r"diffusion\.level_bins must be 2 or more, found 1"):
        NoiseLevels(kind="learned", bins=1)
