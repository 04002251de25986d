"""k-NN against scikit-learn, exactly; the rules for ties; chunks change nothing."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from soda_jax.evaluation.nearest_neighbours import neighbours, vote


def points(count: int, seed: int, width: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) * rng.uniform(0.1, 10, (count, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def data():
    return points(301, 0), np.random.default_rng(2).integers(0, 4, 301), points(97, 1)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_neighbours_are_those_of_scikit_learn(data, k):
    examples, _, queries = data
    theirs = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(examples)
    np.testing.assert_array_equal(neighbours(examples, queries, k), theirs.kneighbors(queries)[1])


def test_answers_are_those_of_scikit_learn(data):
    # 4 classes and k = 6: many votes end in a draw, which both give to the smallest class.
    examples, labels, queries = data
    theirs = KNeighborsClassifier(n_neighbors=6, metric="cosine", algorithm="brute").fit(examples, labels)
    votes = labels[neighbours(examples, queries, 6)]
    counts = np.sort([np.bincount(row, minlength=4) for row in votes], axis=1)
    assert np.sum(counts[:, -1] == counts[:, -2]) > 5
    np.testing.assert_array_equal(vote(votes, 4), theirs.predict(queries))


@pytest.mark.parametrize(("chunk", "query_chunk"), [(7, 10), (64, 97), (300, 96), (301, 1000), (1000, 1)])
def test_the_size_of_the_chunks_changes_nothing(data, chunk, query_chunk):
    examples, _, queries = data
    whole = neighbours(examples, queries[:9], 20)
    cut = neighbours(examples, queries[:9], 20, chunk=chunk, query_chunk=query_chunk)
    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("chunk", [3, 8, 100])
def test_among_equals_the_lower_row_is_nearer(chunk):
    examples = np.tile(np.eye(4, dtype=np.float32), (5, 1)) * 2  # row i is direction i % 4
    found = neighbours(examples, 3 * np.eye(4, dtype=np.float32), 3, chunk=chunk)
    np.testing.assert_array_equal(found, [[i, i + 4, i + 8] for i in range(4)])


def test_cosine_does_not_know_lengths(data):
    examples, _, queries = data
    scale = np.random.default_rng(3).integers(-4, 5, (len(examples), 1))
    moved = neighbours(examples * np.float32(2.0) ** scale, queries / 8, 20)
    np.testing.assert_array_equal(moved, neighbours(examples, queries, 20))


def test_a_row_of_zeros_is_far_but_not_nan():
    examples = np.array([[0, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    found = neighbours(examples, np.array([[1, 0.5]], np.float32), 4)
    np.testing.assert_array_equal(found, [[1, 2, 0, 3]])


def test_filling_is_never_found():
    examples = -points(5, 0)
    found = neighbours(examples, points(3, 0)[:3] * 1, 5, chunk=4, query_chunk=2)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(5), (3, 1)))


@pytest.mark.parametrize(
    ("votes", "winner"), [([2, 1, 1, 2], 1), ([0, 2, 2, 1], 2), ([3, 3, 3, 0], 3), ([1, 2, 3, 0], 0)]
)
def test_the_vote(votes, winner):
    assert vote(np.array([votes]), 4).tolist() == [winner]


@pytest.mark.parametrize("k", [0, 6])
def test_too_many_neighbours_name_the_key(k):
    with pytest.raises(ValueError, match=rf"config\.probe\.knn_k must be in 1\.\.5 .* got {k}"):
        neighbours(points(5, 0), points(1, 1), k)
