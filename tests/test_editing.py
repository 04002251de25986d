"""Interpolation and the exchange of sections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.editing.interpolate import blend, lerp, slerp
from soda_jax.editing.sections import depths, mix, swap_each, swap_section

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


def test_some_sections_are_taken_and_no_others():
    found = mix(A[None], B[None], [0, 2])[0]
    np.testing.assert_array_equal(found, jnp.stack([B[0], A[1], B[2]]))
    with pytest.raises(ValueError, match=r"section must lie in 0..2, found 3, -1"):
        mix(A[None], B[None], [1, 3, -1])


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (3, ((2,), (1,), (0,))),
        (7, ((4, 5, 6), (2, 3), (0, 1))),
        (13, ((8, 9, 10, 11, 12), (4, 5, 6, 7), (0, 1, 2, 3))),
    ],
)
def test_the_middle_of_the_denoiser_is_coarse_and_its_outermost_layers_are_fine(sections, expected):
    assert tuple(depths(sections).values()) == expected
    assert list(depths(sections)) == ["coarse", "middle", "fine"]


def test_one_section_has_no_depths():
    with pytest.raises(ValueError, match=r"3 sections of z or more, found 1.*grouping='per_skip'"):
        depths(1)


def test_blended_noise_keeps_its_variance_and_its_ends():
    a, b = jax.random.normal(jax.random.key(1), (2, 100, 100, 3))
    found = blend(a, b, 5)
    np.testing.assert_array_equal(found[jnp.array([0, -1])], jnp.stack([a, b]))
    np.testing.assert_allclose(found.std((1, 2, 3)), 1.0, atol=0.02)
    np.testing.assert_allclose(jnp.mean(found * a[None], (1, 2, 3)) ** 2, [1, 0.9, 0.5, 0.1, 0], atol=0.03)
