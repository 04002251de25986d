"""The forward process and the conversions between predictions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.process import check_prediction, convert, corrupt, target_of
from soda_jax.diffusion.schedules import Schedule

KINDS = ("eps", "x0", "v")
PAIRS = list(itertools.product(KINDS, KINDS))
TRIPLES = list(itertools.permutations(KINDS))
TIMES = (0.001, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999)
SHAPE = (len(TIMES), 4, 4, 3)


@pytest.fixture(params=["inverted", "cosine", "linear"])
def case(request, key):
    """A batch with one example for each of TIMES: schedule, t, x0, eps, xt, logsnr."""
    schedule = Schedule(name=request.param)
    t = jnp.asarray(TIMES)
    x0 = jax.random.uniform(jax.random.fold_in(key, 1), SHAPE, minval=-1, maxval=1)
    eps = jax.random.normal(jax.random.fold_in(key, 2), SHAPE)
    return schedule, t, x0, eps, corrupt(schedule, x0, eps, t), schedule.logsnr(t)


def tolerance(logsnr) -> np.ndarray:
    """Rounding, magnified by the worse of 1/alpha and 1/sigma: [b, 1, 1, 1]."""
    worse = np.exp(np.abs(np.asarray(logsnr)) / 2)
    return (4e-6 * (1 + worse))[:, None, None, None]


def assert_close(found, expected, logsnr):
    assert np.all(np.abs(np.asarray(found) - np.asarray(expected)) <= tolerance(logsnr))


def test_corrupt_mixes_by_hand(key):
    schedule = Schedule(name="linear")
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[[99, 599]]
    x0, eps = np.asarray(jax.random.normal(key, (2, 2, 1, 1, 1)))
    expected = np.sqrt(abar)[:, None, None, None] * x0 + np.sqrt(1 - abar)[:, None, None, None] * eps
    found = corrupt(schedule, jnp.asarray(x0), jnp.asarray(eps), jnp.asarray([0.1, 0.6]))
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_corrupt_keeps_the_image_at_zero_and_the_noise_at_one(key):
    x0 = jnp.full((2, 8, 8, 1), 0.7)
    eps = jax.random.normal(key, x0.shape)
    xt = corrupt(Schedule(), x0, eps, jnp.asarray([0.0, 1.0]))
    np.testing.assert_array_equal(xt[0], x0[0])
    np.testing.assert_allclose(xt[1], eps[1], atol=0.01)


@pytest.mark.parametrize("source, target", PAIRS)
def test_true_predictions_convert_into_each_other(case, source, target):
    _, _, x0, eps, xt, logsnr = case
    found = convert(target_of(source, x0, eps, logsnr), source, target, xt, logsnr)
    assert_close(found, target_of(target, x0, eps, logsnr), logsnr)


@pytest.mark.parametrize("source, target", PAIRS)
def test_any_prediction_survives_the_round_trip(case, source, target, key):
    """Not only the true one: a wrong prediction too comes back as it was."""
    _, _, _, _, xt, logsnr = case
    value = jax.random.normal(jax.random.fold_in(key, 3), xt.shape)
    there = convert(value, source, target, xt, logsnr)
    back = convert(there, target, source, xt, logsnr)
    magnified = np.abs(np.asarray(there)).max(axis=(1, 2, 3), keepdims=True)
    assert np.all(np.abs(np.asarray(back - value)) <= tolerance(logsnr) * (1 + magnified))


@pytest.mark.parametrize("source, between, target", TRIPLES)
def test_a_detour_changes_nothing(case, source, between, target, key):
    _, _, _, _, xt, logsnr = case
    value = jax.random.normal(jax.random.fold_in(key, 4), xt.shape)
    direct = convert(value, source, target, xt, logsnr)
    detour = convert(convert(value, source, between, xt, logsnr), between, target, xt, logsnr)
    scale = 1 + np.abs(np.asarray(direct)).max(axis=(1, 2, 3), keepdims=True)
    assert np.all(np.abs(np.asarray(direct - detour)) <= tolerance(logsnr) * scale)


def test_squared_errors_of_two_kinds_differ_by_the_snr(case, key):
    """|x0 error|^2 = |eps error|^2 / SNR and |v error|^2 = |eps error|^2 / alpha^2: the loss weights."""
    schedule, t, x0, eps, xt, logsnr = case
    guess = eps + jax.random.normal(jax.random.fold_in(key, 5), eps.shape)
    error = {
        kind: jnp.mean(
            (convert(guess, "eps", kind, xt, logsnr) - target_of(kind, x0, eps, logsnr)) ** 2, axis=(1, 2, 3)
        )
        for kind in KINDS
    }
    np.testing.assert_allclose(error["x0"], error["eps"] / jnp.exp(logsnr), rtol=3e-3)
    np.testing.assert_allclose(error["v"], error["eps"] / schedule.alpha(t) ** 2, rtol=3e-3)


def test_v_is_orthogonal_to_xt_on_average(key):
    """With unit-variance x0 and eps, v is the other side of the rotation: E[xt v] = 0."""
    x0, eps = jax.random.normal(key, (2, 1, 64, 64, 4))
    logsnr = jnp.asarray([0.7])
    schedule_free_xt = jnp.sqrt(jax.nn.sigmoid(0.7)) * x0 + jnp.sqrt(jax.nn.sigmoid(-0.7)) * eps
    assert abs(float(jnp.mean(schedule_free_xt * target_of("v", x0, eps, logsnr)))) < 0.03


def test_an_unknown_kind_names_its_keys():
    expected = r"diffusion\.prediction or diffusion\.loss_in: expected one of .*found 'score'"
    with pytest.raises(ValueError, match=expected):
        check_prediction("score")
