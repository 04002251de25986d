"""Sinusoidal embeddings: the published formula, the order of waves, and that neighbours can be told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.embed import TimeEmbedding, position_embedding, sinusoid, time_embedding


def by_definition(t, width, scale=1e-4):
    """spec: omega_k = 1 / (2 pi s 10000^(k/K)), time moved to [-1, 1], cosines before sines; in float64."""
    k = np.arange(width // 2)
    omega = 1 / (2 * np.pi * scale * 10000 ** (k / (width // 2)))
    angle = (2 * np.float64(t) - 1)[:, None] * omega
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


def test_time_embedding_is_the_formula():
    t = np.float32([0.0, 0.001, 0.25, 0.5, 0.999, 1.0])
    # the fastest wave turns 1592 radians, where float32 resolves 1e-4
    np.testing.assert_allclose(time_embedding(jnp.array(t), 16), by_definition(t, 16), atol=3e-4)


def test_the_middle_of_time_is_the_zero_of_the_sinusoid():
    np.testing.assert_allclose(time_embedding(jnp.array([0.5]), 8), [[1] * 4 + [0] * 4], atol=1e-6)


def test_fastest_wave_turns_by_half_a_circle_between_neighbours_of_1000_steps():
    """Slow waves alone (or a scale that multiplies) would make all steps look alike."""
    t = jnp.arange(1, 1001) / 1000
    embedded = np.array(time_embedding(t, 128))
    steps = np.linalg.norm(np.diff(embedded, axis=0), axis=1)
    assert steps.min() > 1.0


def test_all_1000_steps_are_told_apart():
    embedded = np.array(time_embedding(jnp.arange(1, 1001) / 1000, 128))
    distance = np.linalg.norm(embedded[:, None] - embedded[None], axis=-1) + 9 * np.eye(1000)
    assert distance.min() > 1.0


def test_odd_width_names_the_key():
    with pytest.raises(ValueError, match=r"even width, not 7.*model\.channels"):
        time_embedding(jnp.zeros(1), 7)


def test_sinusoid_takes_any_shape_of_positions():
    u = jnp.linspace(-1, 1, 6)
    grid = sinusoid(u.reshape(2, 3), 8, 0.1)
    np.testing.assert_array_equal(grid.reshape(6, 8), sinusoid(u, 8, 0.1))


def test_positions_with_unit_frequency_are_the_transformers():
    """arXiv 1706.03762: wave k of position p is sin(p / 10000^(2k/width)); here the columns of one row."""
    embedded = position_embedding(1, 5, 16)
    k = np.arange(4)
    expected = np.sin(np.arange(5)[:, None] / 10000 ** (2 * k / 8))
    np.testing.assert_allclose(embedded[:, 12:], expected, atol=1e-6)


def test_positions_go_row_by_row():
    embedded = np.array(position_embedding(2, 3, 8)).reshape(2, 3, 8)
    np.testing.assert_array_equal(embedded[:, 0, :4], embedded[:, 2, :4])  # the row's half ignores the column
    np.testing.assert_array_equal(embedded[0, :, 4:], embedded[1, :, 4:])
    assert len(np.unique(embedded.reshape(6, 8), axis=0)) == 6


def test_time_perceptron_is_four_times_as_wide_with_float32_parameters(key):
    values, variables = jax.eval_shape(TimeEmbedding(8, jnp.bfloat16).init_with_output, key, jnp.zeros(3))
    assert values.shape == (3, 32) and values.dtype == jnp.bfloat16
    assert variables["params"]["dense_0"]["kernel"].dtype == jnp.float32
