"""The random numbers of an example depend on the seed and on its number alone."""

import numpy as np
import pytest

from data.draws import Tape, tapes


def numbers(seed, first, count, draws):
    return [[tape.random() for _ in range(draws)] for tape in tapes(seed, first, count, draws)]


@pytest.mark.parametrize("draws", [1, 4, 7, 62])
def test_the_cut_into_batches_does_not_matter(draws):
    whole = numbers(3, 0, 12, draws)
    assert whole == [row for first in range(0, 12, 3) for row in numbers(3, first, 3, draws)]
    assert whole[5:6] == numbers(3, 5, 1, draws)


def test_no_two_examples_and_no_two_seeds_share_numbers():
    drawn = np.array([numbers(seed, 0, 50, 10) for seed in (0, 1, 2**32 - 1)])
    assert np.unique(drawn).size == drawn.size


def test_late_examples_are_reached_at_once():
    far = 2**70  # far beyond 64 bits of count
    assert numbers(0, far, 2, 4)[1] == numbers(0, far + 1, 1, 4)[0]


def test_they_are_uniform():
    drawn = np.array(numbers(1, 0, 2000, 8)).ravel()
    assert 0 <= drawn.min() < 0.001 and 0.999 < drawn.max() < 1
    counts = np.histogram(drawn, 16, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 37.7  # chi-squared, 15 degrees of freedom, p = 0.001


def test_a_tape_ends():
    tape = Tape([0.5])
    assert tape.random() == 0.5
    with pytest.raises(StopIteration):
        tape.random()
