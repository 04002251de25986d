"""Intervals of an accuracy: the definition is fulfilled, and images of one scene do not count as many."""

import numpy as np
import pytest

from soda_jax.evaluation.intervals import (
    DRAWS,
    QUANTILE,
    accuracy_interval,
    bootstrap,
    effective_count,
    middle_95,
    resampled,
    wilson,
)


@pytest.mark.parametrize("accuracy", [0.03, 0.5, 0.843])
@pytest.mark.parametrize("count", [10, 10_000, 2.5])
def test_the_ends_fulfil_the_definition(accuracy, count):
    for end in wilson(accuracy, count):
        assert abs(accuracy - end) == pytest.approx(QUANTILE * np.sqrt(end * (1 - end) / count), rel=1e-9)


def test_a_published_example():
    # 81 of 263: Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_it_covers_about_95_percent():
    draws = np.random.default_rng(0).binomial(200, 0.8, 4000) / 200
    covered = np.mean([low <= 0.8 <= high for low, high in (wilson(float(p), 200) for p in draws)])
    assert 0.935 < covered < 0.965


def test_one_is_the_mirror_image_of_the_other():
    low, high = wilson(0.2, 50)
    assert wilson(0.8, 50) == pytest.approx((1 - high, 1 - low))


def test_images_that_stand_alone_count_in_full():
    correct = np.random.default_rng(0).random(500) < 0.7
    assert effective_count(correct, np.arange(500)) == pytest.approx(500)
    assert accuracy_interval(correct, np.arange(500)) == (
        correct.mean(),
        pytest.approx(wilson(correct.mean(), 500)),
    )


def test_copies_of_an_image_count_once():
    correct = np.random.default_rng(0).random(300) < 0.7
    assert effective_count(np.repeat(correct, 8), np.repeat(np.arange(300), 8)) == pytest.approx(300)
    shuffled = np.random.default_rng(1).permutation(2400)
    many, groups = np.repeat(correct, 8)[shuffled], np.repeat(np.arange(300) * 5, 8)[shuffled]
    assert effective_count(many, groups) == pytest.approx(300)


def test_scenes_that_vary_less_than_chance_gain_nothing():
    correct = np.tile([True, False], 100)
    assert effective_count(correct, np.repeat(np.arange(100), 2)) == 200


def test_the_accuracy_lies_inside_to_the_last_bit():
    for count in range(1, 400):
        assert wilson(0.0, count)[0] == 0.0 and wilson(1.0, count)[1] == 1.0


@pytest.mark.parametrize("right", [True, False])
def test_without_variation_the_scenes_are_counted(right):
    correct = np.full(40, right)
    accuracy, (low, high) = accuracy_interval(correct, np.repeat(np.arange(10), 4))
    assert accuracy == float(right) and (low, high) == wilson(float(right), 10) and high - low > 0.2


@pytest.mark.parametrize(("accuracy", "count"), [(0.5, 0), (1.01, 10), (-0.1, 10)])
def test_nonsense_is_refused(accuracy, count):
    with pytest.raises(ValueError, match="count > 0 and 0 <= accuracy <= 1"):
        wilson(accuracy, count)


def test_the_bootstrap_of_a_mean_is_that_of_theory():
    """Half of its width is 1.96 standard errors, of scenes where examples come in groups."""
    rng = np.random.default_rng(0)
    scene = rng.normal(3.0, 2.0, 400)
    mean, (low, high) = bootstrap(scene, np.arange(400))
    assert mean == pytest.approx(scene.mean())
    error = scene.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(QUANTILE * error, rel=0.08)
    assert bootstrap(np.repeat(scene, 5), np.repeat(np.arange(400), 5)) == (
        pytest.approx(mean),
        pytest.approx((low, high)),
    )


def test_the_bootstrap_covers_about_95_percent():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(200):
        x = rng.normal(0.0, 1.0, (30, 1)) + rng.normal(0.0, 0.2, (30, 7))
        _, (low, high) = bootstrap(x.ravel(), np.repeat(np.arange(30), 7))
        inside += low <= 0 <= high
    assert 0.88 < inside / 200 <= 0.99


def test_the_bootstrap_of_a_ratio_and_its_seed():
    weights = np.array([1.0, 3.0, 2.0, 5.0])
    ratio, interval = bootstrap(2 * weights, np.arange(4), weights)
    assert ratio == 2 and interval == pytest.approx((2, 2))  # whatever is drawn
    assert bootstrap(np.array([1.0, 2.0, 5.0, 9.0]), np.arange(4), weights)[0] == pytest.approx(17 / 11)
    values, groups = np.random.default_rng(0).random(50), np.arange(50)
    assert bootstrap(values, groups) == bootstrap(values, groups)
    assert bootstrap(values, groups, seed=1) != bootstrap(values, groups)


def test_resampled_sums_are_those_of_scenes_drawn_with_replacement():
    """As many scenes each time, so that a count stays; totals on the mean; the interval of a ratio is bootstrap's."""
    rng = np.random.default_rng(3)
    values, groups = rng.random(60), np.repeat(np.arange(20), 3)
    sums = np.stack([values.reshape(20, 3).sum(1), np.full(20, 3.0)])
    drawn = resampled(sums)
    assert drawn.shape == (2, DRAWS)
    np.testing.assert_array_equal(drawn[1], 60.0)
    assert drawn[0].mean() == pytest.approx(values.sum(), rel=0.01) and drawn[0].std() > 0.5
    assert bootstrap(values, groups)[1] == pytest.approx(middle_95(drawn[0] / drawn[1]))
    np.testing.assert_allclose(resampled(sums[:, :1]), np.repeat(sums[:, :1], DRAWS, 1))
