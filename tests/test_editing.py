"""Interpolation and the exchange of sections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.editing.interpolate import lerp, slerp
from soda_jax.editing.sections import swap_each, swap_section

A, B = jax.random.normal(jax.random.key(0), (2, 3, 4))


@pytest.mark.parametrize("strip", [lerp, slerp])
def test_a_strip_starts_at_one_and_ends_at_the_other(strip):
    found = strip(A, B, 5)
    assert found.shape == (5, 3, 4)
    np.testing.assert_allclose(found[0], A, atol=1e-5)
    np.testing.assert_allclose(found[-1], B, atol=1e-5)


def test_lerp_has_equal_steps():
    np.testing.assert_allclose(
        jnp.diff(lerp(A, B, 5), axis=0), jnp.broadcast_to((B - A) / 4, (4, 3, 4)), atol=1e-6
    )


def test_slerp_turns_by_equal_angles_and_keeps_the_length():
    a, b = jnp.eye(2)[:, None]  # a right angle
    found = slerp(3.0 * a, 3.0 * b, 4)[:, 0]
    angles = np.radians([0, 30, 60, 90])
    np.testing.assert_allclose(found, 3 * np.stack([np.cos(angles), np.sin(angles)], -1), atol=1e-5)


def test_slerp_changes_the_length_evenly():
    a, b = jnp.eye(2)[:, None]
    np.testing.assert_allclose(jnp.linalg.norm(slerp(a, 5.0 * b, 5), axis=(1, 2)), [1, 2, 3, 4, 5], rtol=1e-5)


@pytest.mark.parametrize("other", [A, 2.0 * A, -A, jnp.zeros((3, 4))])
def test_slerp_is_straight_where_there_is_no_arc(other):
    np.testing.assert_allclose(slerp(A, other, 4), lerp(A, other, 4), atol=1e-5)


def test_a_strip_of_one_is_refused():
    with pytest.raises(ValueError, match="2 latents or more, found count=1"):
        lerp(A, B, 1)


@pytest.mark.parametrize("index", [0, 2])
def test_one_section_is_exchanged(index):
    found = swap_section(A[None], B[None], index)[0]
    np.testing.assert_array_equal(found[index], B[index])
    others = [i for i in range(3) if i != index]
    np.testing.assert_array_equal(found[jnp.array(others)], A[jnp.array(others)])


def test_each_row_exchanges_its_own_section():
    found = swap_each(A, B)
    for i in range(3):
        np.testing.assert_array_equal(found[i], swap_section(A[None], B[None], i)[0])


@pytest.mark.parametrize("index", [-1, 3])
def test_a_section_that_is_not_there_is_refused(index):
    with pytest.raises(ValueError, match=rf"section must lie in 0..2, found {index}"):
        swap_section(A[None], B[None], index)
