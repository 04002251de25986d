"""The latent monitor on codes and on methods whose answers are known."""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.training.latent_monitor import dead_dims, effective_rank, monitor, warning
from soda_jax.training.state import variables
from tests import tiny

KEYS = jax.random.split(jax.random.key(1), 16)
HEALTHY = {
    "loss_true": 0.2,
    "loss_shuffled": 0.3,
    "use": 0.1,
    "use_error": 0.01,
    "gradient_norm": 0.1,
    "effective_rank": 20.0,
    "dead_dims": 0.0,
    "latent_dim": 130.0,
}


@dataclass(frozen=True)
class Weighted:
    """A method of which all is known: loss_i = sum_s w_s |z_s - code_s - 1/2|^2, the code is the source."""

    weights: tuple[float, ...]

    def init(self, key, spec):
        return {}

    def loss(self, variables, batch, keys, train=True):
        return jnp.mean(self.loss_given_latent(variables, batch["source"], batch, keys)), {}

    def encode(self, variables, images):
        return {"z": images.reshape(images.shape[0], -1)}

    def latent(self, variables, source, cameras=None):
        return source

    def loss_given_latent(self, variables, z, batch, keys, train=False):
        distance = jnp.sum(jnp.square(z - batch["source"] - 0.5), axis=-1)
        return jnp.sum(jnp.asarray(self.weights)[None] * distance, axis=-1)


def orthogonal(n):
    """n orthogonal columns of mean 0, in 16 rows."""
    columns = np.random.default_rng(0).normal(size=(16, n))
    return np.linalg.qr(np.concatenate([np.ones((16, 1)), columns], axis=1))[0][:, 1:]


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_rank_of_equally_strong_directions_is_their_number(rank):
    mixed = orthogonal(rank) @ np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0][:rank]
    assert float(effective_rank(jnp.asarray(mixed + 5.0, jnp.float32))) == pytest.approx(rank, rel=1e-3)


def test_unequal_directions_count_by_their_entropy():
    codes = orthogonal(3) * np.sqrt([0.7, 0.2, 0.1])
    expected = np.exp(-np.sum([p * np.log(p) for p in (0.7, 0.2, 0.1)]))
    assert float(effective_rank(jnp.asarray(codes, jnp.float32))) == pytest.approx(expected, rel=1e-3)


def test_deviations_in_the_place_of_variances_make_a_larger_rank():
    codes = orthogonal(3) * np.sqrt([0.7, 0.2, 0.1])
    p = np.sqrt([0.7, 0.2, 0.1]) / np.sqrt([0.7, 0.2, 0.1]).sum()
    found = [float(effective_rank(jnp.asarray(codes, jnp.float32), power)) for power in (1, 2)]
    assert found[0] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-3) and found[0] > found[1]
    assert float(effective_rank(jnp.asarray(orthogonal(4), jnp.float32), 1)) == pytest.approx(4, rel=1e-3)


def test_codes_that_do_not_vary_have_no_rank():
    assert float(effective_rank(jnp.full((16, 8), 3.0))) == 0.0
    assert dead_dims(jnp.full((16, 8), 3.0)).all()


def test_dead_dimensions_are_those_that_hardly_vary():
    codes = jnp.asarray(orthogonal(6) * [1, 1, 1, 1, 1e-4, 0] + 2.0, jnp.float32)
    np.testing.assert_array_equal(dead_dims(codes), [False] * 4 + [True] * 2)


def test_gains_and_use_are_those_of_a_method_that_is_known():
    """Section s set to zero: sum_d w_s ((code + 1/2)^2 - 1/4); shuffled: neighbours' distance."""
    method, code = Weighted((2.0, 0.0, 1.0)), jax.random.normal(jax.random.key(2), (16, 3, 2))
    values = jax.jit(lambda batch: monitor(method, {}, batch, KEYS))({"source": code})
    weights, code = np.array(method.weights), np.asarray(code)
    gains = weights * np.mean(np.sum((code + 0.5) ** 2 - 0.25, axis=-1), axis=0)
    np.testing.assert_allclose([values[f"gain/0{i}"] for i in range(3)], gains, rtol=1e-4, atol=1e-5)
    distance = np.sum((np.roll(code, 1, axis=0) - code - 0.5) ** 2, axis=-1) @ weights
    difference = distance - 0.25 * 2 * weights.sum()
    assert float(values["use"]) == pytest.approx(difference.mean(), rel=1e-4)
    assert float(values["use_error"]) == pytest.approx(difference.std() / 4, rel=1e-4)
    assert float(values["gradient_norm"]) == pytest.approx(np.sqrt(2 * np.sum(weights**2)), rel=1e-4)
    assert float(values["loss_shuffled"] - values["loss_true"]) == pytest.approx(
        float(values["use"]), rel=1e-3
    )
    assert warning(values) is None


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_parts_change_no_reading(parts):
    method = tiny.soda(encoder=tiny.Encoder(batch_norm=True))
    whole, cut = (monitor(method, tiny.variables(method), tiny.batch(), KEYS, n) for n in (1, parts))
    assert whole.keys() == cut.keys() and float(whole["gradient_norm"]) > 0
    np.testing.assert_allclose(list(cut.values()), list(whole.values()), rtol=1e-5, atol=1e-6)


def test_a_denoiser_that_ignores_the_latent_is_found_out():
    method = tiny.soda(denoiser=tiny.Denoiser(listens=False))
    values = jax.jit(lambda v: monitor(method, v, tiny.batch(), KEYS))(tiny.variables(method))
    assert float(values["use"]) == 0.0 and float(values["gradient_norm"]) == 0.0
    assert all(float(x) == 0.0 for name, x in values.items() if name.startswith("gain/"))
    assert "ignores the latent" in warning(values)


def test_a_denoiser_that_was_taught_is_cleared():
    """The mean grey of an image helps to restore it, and three hundred steps find that out."""
    method = tiny.soda()
    state = tiny.state(method)
    for i in range(300):
        state, _ = tiny.step(method)(state, tiny.batch(seed=i))
    values = monitor(method, variables(state), tiny.batch(256, seed=999), jax.random.split(KEYS[0], 256))
    assert float(values["use"]) > 2 * float(values["use_error"]) > 0
    assert "ignores" not in (warning(values) or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"use": 0.0}, "ignores the latent: .* its loss is 0.3000 instead of 0.2000"),
        ({"use": -0.1}, "ignores the latent"),
        ({"use": 0.015}, "ignores the latent"),  # within two standard errors of nothing
        ({"effective_rank": 1.2}, "collapsed: its effective rank is 1.2 of 130"),
        ({"dead_dims": 100.0}, "100 of 130 dimensions of the latent never vary"),
    ],
)
def test_warnings_are_words_and_only_where_due(changes, words):
    found = warning({**HEALTHY, **changes})
    assert (found is None) if words is None else re.search(words, found)
