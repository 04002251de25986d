"""One step: golden numbers, accumulation, failure, learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.training.optimizer import Ema
from soda_jax.training.step import microbatches, step_keys
from tests import tiny

PLAIN = tiny.soda(source_noise=0.0)
NORMED = tiny.soda(encoder=tiny.Encoder(batch_norm=True))
BATCH = {name: x.astype(jnp.float32) / 255 if name != "index" else x for name, x in tiny.batch().items()}


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def leaves_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_accumulation_is_the_whole_batch_where_examples_do_not_meet():
    """Without BatchNorm and dropout the gradient is that of the whole batch."""
    whole, parts = (tiny.step(PLAIN, n)(tiny.state(PLAIN), BATCH) for n in (1, 4))
    close(whole[1], parts[1], rtol=1e-5)
    close(whole[0].opt_state[1].mu, parts[0].opt_state[1].mu, atol=1e-6)  # Adam's own step magnifies rounding
    close(whole[0].params, parts[0].params, atol=1e-4)


def test_accumulation_chains_the_statistics_of_the_microbatches():
    """BatchNorm normalises each microbatch by itself: the gradient differs from the whole batch's."""
    state, metrics = tiny.step(NORMED, 2)(tiny.state(NORMED), BATCH)
    before, keys = tiny.variables(NORMED), step_keys(0, jnp.int32(0), 16)
    stats, losses = before["batch_stats"], []
    for part in range(2):
        rows = slice(part, None, 2)
        batch = {name: x[rows] for name, x in BATCH.items()}
        loss, aux = NORMED.loss({"params": before["params"], "batch_stats": stats}, batch, keys[rows])
        stats, losses = aux["batch_stats"], [*losses, loss]
    close(state.batch_stats, stats, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)


def test_microbatches_take_every_nth_row():
    cut = microbatches({"x": jnp.arange(6), "y": jnp.arange(12).reshape(6, 2)}, 2)
    np.testing.assert_array_equal(cut["x"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(cut["y"][1, :, 0], [2, 6, 10])
    with pytest.raises(ValueError, match=r"must divide the batch: found 4 for a batch of 6"):
        microbatches(jnp.arange(6), 4)


def test_every_step_and_every_example_draws_anew():
    first, second = (jax.random.key_data(step_keys(0, jnp.int32(step), 4)) for step in (0, 1))
    assert len({tuple(map(int, row)) for row in [*first, *second]}) == 8
    assert not np.array_equal(first, jax.random.key_data(step_keys(1, jnp.int32(0), 4)))


def test_a_step_counts_and_averages():
    state, metrics = tiny.step(NORMED)(tiny.state(NORMED), BATCH)
    start = tiny.state(NORMED)
    d = float(Ema(decay=0.99).at(jnp.int32(0)))
    assert (int(state.step), int(state.failed_step), bool(metrics["finite"])) == (1, -1, True)
    for name in ("params", "batch_stats"):
        mean = jax.tree.map(
            lambda old, new: d * old + (1 - d) * new, getattr(start, name), getattr(state, name)
        )
        close(getattr(state, f"ema_{name}"), mean, atol=1e-6)
    assert not leaves_equal(state.params, start.params)
    assert {"loss", "grad_norm", "finite", "z_square"} == set(metrics)


def test_a_batch_that_is_not_finite_changes_nothing_and_ends_all_updates():

    def step(state, batch):
        return tiny.step(NORMED)(jax.tree.map(jnp.copy, state), batch)

    good, bad = BATCH, {**BATCH, "target": BATCH["target"].at[3, 0, 0, 0].set(jnp.nan)}
    state, _ = step(tiny.state(NORMED), good)
    failed, metrics = step(state, bad)
    assert not metrics["finite"] and int(failed.failed_step) == 1
    assert leaves_equal(failed.replace(failed_step=state.failed_step), state)
    after, metrics = step(failed, good)
    assert metrics["finite"] and leaves_equal(after, failed)
    again, _ = step(after, bad)
    assert int(again.failed_step) == 1


def test_the_state_is_donated():
    state = tiny.state(NORMED)
    tiny.step(NORMED)(state, BATCH)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(jax.tree.leaves(state.params)[0])


def test_one_small_batch_is_learnt():
    state, losses = tiny.state(NORMED), []
    for _ in range(150):
        state, metrics = tiny.step(NORMED)(state, BATCH)
        losses.append(metrics["loss"])
    assert np.mean(losses[:3]) > 1.0
    assert np.mean(losses[-10:]) < 0.25
