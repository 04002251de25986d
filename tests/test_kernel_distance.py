"""The kernel distance against a plain loop; no bias, an interval that holds, a sample that batches do not change."""

import numpy as np
import pytest

from soda_jax.evaluation.kernel_distance import Sample, kernel_distance, squared_discrepancy


def by_loop(a, b):
    """Equations 1 and 2, pair by pair."""

    def k(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def mean(values):
        return sum(values) / len(values)

    within = [mean([k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    return sum(within) - 2 * mean([k(x, y) for x in a for y in b])


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_it_is_that_of_a_plain_loop():
    a, b = normal(0, 9, 4), 1.5 * normal(1, 7, 4) + 0.3
    assert squared_discrepancy(a, b) == pytest.approx(by_loop(a.tolist(), b.tolist()), rel=1e-10)


def test_a_subset_is_a_mean_over_pairs_of_different_images():
    """2 x 40 images make 10 subsets of 4, each measured by itself."""
    a, b = normal(0, 40, 3), normal(1, 43, 3) + 0.5
    found = kernel_distance(a, b)
    values = [by_loop(a[4 * i : 4 * i + 4].tolist(), b[4 * i : 4 * i + 4].tolist()) for i in range(10)]
    half = 2.262157 * np.std(values, ddof=1) / np.sqrt(10)  # Student's t of 9 degrees at 0.975
    assert (found.subsets, found.images) == (10, 4) and found.value == pytest.approx(np.mean(values))
    assert found.interval == pytest.approx((found.value - half, found.value + half), rel=1e-5)


def test_it_is_zero_on_average_for_equal_distributions_and_its_interval_holds():
    found = [kernel_distance(normal([0, i], 100, 8), normal([1, i], 100, 8)) for i in range(200)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(200) and 0.3 < np.mean(values < 0) < 0.7
    held = np.mean([one.interval[0] <= 0 <= one.interval[1] for one in found])
    assert 0.9 <= held <= 0.99


def test_other_distributions_are_told_apart():
    found = [kernel_distance(normal(0, 2000, 8), normal(1, 2000, 8) + shift) for shift in (0.2, 0.4, 0.8)]
    assert all(one.interval[0] > 0 for one in found)
    assert found[0].value < found[1].value < found[2].value


def test_a_sample_does_not_depend_on_the_batches():
    x = normal(0, 500, 3)
    whole, cut = Sample(seed=3, most=50), Sample(seed=3, most=50)
    whole.add(x)
    for part in np.split(x, [1, 7, 300, 300, 420]):
        cut.add(part)
    np.testing.assert_array_equal(whole.rows, cut.rows)
    assert whole.rows.shape == (50, 3) and len(np.unique(whole.rows[:, 0])) == 50
    other = Sample(seed=4, most=50)
    other.add(x)
    assert not np.array_equal(other.rows, whole.rows)


def test_every_image_is_as_likely_to_be_kept():
    kept = np.zeros(20)
    for seed in range(400):
        sample = Sample(seed, most=5)
        for i in range(4):
            sample.add(np.arange(5 * i, 5 * i + 5.0)[:, None])
        kept[sample.rows[:, 0].astype(int)] += 1
    assert kept.sum() == 2000 and np.abs(kept - 100).max() < 4 * np.sqrt(400 * 0.25 * 0.75)


def test_too_few_images():
    with pytest.raises(ValueError, match="20 images or more, found 19"):
        kernel_distance(normal(0, 19, 3), normal(1, 40, 3))
    with pytest.raises(ValueError, match="features of 3 and of 4 numbers"):
        kernel_distance(normal(0, 40, 3), normal(1, 40, 4))
    with pytest.raises(ValueError, match="no image to measure"):
        _ = Sample(0).rows
