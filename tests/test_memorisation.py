"""Nearest training images: by brute force, and what copies and new images look like."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from soda_jax.evaluation.memorisation import compared, nearest


def gaussian(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)


def test_the_nearest_is_that_of_all_pairs():
    examples, queries = gaussian(90, 0) + 5, gaussian(300, 1) + 5  # more queries than one product takes
    found, apart = nearest(examples, queries), cdist(queries, examples)
    np.testing.assert_array_equal(found.row, apart.argmin(1))
    np.testing.assert_allclose(found.distance, apart.min(1), rtol=1e-5)
    np.testing.assert_array_equal(found.closest(3), np.argsort(apart.min(1))[:3])


def test_an_example_is_at_distance_zero_of_itself():
    examples = 1000 + gaussian(50, 0)
    assert nearest(examples, examples[7:9]).distance.tolist() == [0, 0]


@pytest.mark.parametrize(("noise", "ratio", "copies"), [(0.0, 0.0, 1.0), (None, 1.0, 0.01)])
def test_copies_stand_out_and_new_images_do_not(noise, ratio, copies):
    examples, test = gaussian(500, 0), gaussian(2000, 1)
    generated = examples if noise == 0.0 else gaussian(2000, 2)
    found = compared(nearest(examples, generated).distance, nearest(examples, test).distance)
    assert found["ratio"] == pytest.approx(ratio, abs=0.03)
    assert found["copies"] == pytest.approx(copies, abs=0.01)


def test_nothing_to_compare_with_names_the_flag():
    with pytest.raises(ValueError, match=r"raise --train"):
        nearest(np.zeros((0, 3)), np.zeros((2, 3)))
