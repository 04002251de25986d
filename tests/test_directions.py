"""Principal directions of latents, against scikit-learn and against latents whose main axis is known."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from soda_jax.editing.directions import correlation_ratio, principal, section_variances, sweep

RNG = np.random.default_rng(0)
AXIS = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]) / 5  # of unit length, [s, d]


def latents(count=2000):
    """Spread 5 along AXIS, 1 along the others; the first section's second entry is alone in moving by 2."""
    z = RNG.normal(size=(count, 3, 2)) + 5 * RNG.normal(size=(count, 1, 1)) * AXIS
    z[:, 0, 1] *= 2
    return (z + 7).astype(np.float32)


def test_directions_shares_and_scores_are_those_of_scikit_learn():
    z = latents().astype(np.float64)  # what scikit-learn computes in, too
    found, expected = principal(z, 4), PCA(4).fit(z.reshape(len(z), -1))
    signs = np.sign(np.sum(found.vectors.reshape(4, -1) * expected.components_, axis=1))
    np.testing.assert_allclose(found.vectors.reshape(4, -1), signs[:, None] * expected.components_, atol=1e-4)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, rtol=1e-4)
    scores = found.scores(z) * found.deviations * signs
    np.testing.assert_allclose(scores, expected.transform(z.reshape(len(z), -1)), atol=1e-3)


def test_the_main_axis_is_found_with_its_length():
    found = principal(latents(), 2)
    assert np.sum(found.vectors[0] * AXIS) == pytest.approx(1, abs=0.01)
    assert found.deviations[0] == pytest.approx(np.sqrt(26), rel=0.05)
    assert found.scores(latents()).std(0) == pytest.approx([1, 1], rel=0.05)


def test_the_largest_entry_of_a_direction_is_positive():
    largest = [v.flat[np.abs(v).argmax()] for v in principal(latents(), 6).vectors]
    assert len(largest) == 6 and min(largest) > 0


def test_a_section_has_directions_of_its_own():
    z = latents()
    found, expected = principal(z, 5, section=0), PCA(2).fit(z[:, 0])
    assert found.vectors.shape == (2, 3, 2) and (found.vectors[:, 1:] == 0).all()
    np.testing.assert_allclose(np.abs(found.vectors[:, 0]), np.abs(expected.components_), atol=1e-4)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, rtol=1e-4)


def test_variances_of_sections_are_shares_of_the_whole():
    expected = latents().reshape(-1, 6).var(0).reshape(3, 2).sum(1)
    np.testing.assert_allclose(section_variances(latents()), expected / expected.sum(), rtol=0.1)


def test_a_section_that_never_changes_has_no_direction_that_counts():
    z = latents()
    z[:, 2] = 1
    found = principal(z, 2, section=2)
    assert found.deviations.tolist() == [0, 0] and np.isfinite(found.scores(z)).all()


def test_one_latent_has_no_directions():
    with pytest.raises(ValueError, match="2 latents or more, found 1"):
        principal(latents(1), 2)


def test_a_sweep_moves_each_latent_by_each_amount():
    z = latents(2)
    found = sweep(z, AXIS.astype(np.float32), np.array([-2.0, 0.0, 1.0], np.float32))
    np.testing.assert_array_equal(found[:, 1], z)
    np.testing.assert_allclose(found[1, 0], z[1] - 2 * AXIS, atol=1e-5)
    np.testing.assert_allclose(found[0, 2], z[0] + AXIS, atol=1e-5)


def test_the_correlation_ratio_is_r_squared_of_the_class_means():
    labels = RNG.integers(0, 3, 500)
    scores = np.stack([labels**2, RNG.normal(size=500), 2 * labels + RNG.normal(size=500), np.ones(500)], 1)
    one_hot = np.eye(3)[labels]
    predicted = one_hot @ np.linalg.lstsq(one_hot, scores, rcond=None)[0]
    expected = 1 - ((scores - predicted) ** 2).sum(0)[:3] / ((scores - scores.mean(0)) ** 2).sum(0)[:3]
    found = correlation_ratio(scores, labels)
    np.testing.assert_allclose(found[:3], expected, atol=1e-6)
    assert found[0] == pytest.approx(1) and found[1] < 0.05 and found[3] == 0
