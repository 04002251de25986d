"""The Frechet distance against a matrix square root, closed forms, and itself however the images are cut."""

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.transform import Rotation

from soda_jax.evaluation.frechet import Moments, cautions, frechet_distance, gathered, of


def features(seed, count=300, width=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


def by_square_root(a, b):
    """The definition, by a general root of a matrix that is not symmetric."""
    c, d = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    root = scipy.linalg.sqrtm(c @ d)
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(c) + np.trace(d) - 2 * np.trace(root.real)


@pytest.mark.parametrize("width", [1, 2, 12, 40])
def test_it_is_that_of_the_matrix_square_root(width):
    a, b = features(0, width=width), features(1, 200, width)
    assert frechet_distance(of(a), of(b)) == pytest.approx(by_square_root(a, b), rel=1e-9)


def moments(mean, covariance):
    return Moments(count=101, mean=np.asarray(mean, float), scatter=100.0 * np.asarray(covariance, float))


def test_closed_forms():
    covariance = np.cov(features(0).T)
    apart = np.linspace(-1, 1, 12)
    assert frechet_distance(moments(apart, covariance), moments(0 * apart, covariance)) == pytest.approx(
        apart @ apart, rel=1e-9
    )
    diagonal = frechet_distance(
        moments([0, 1, 0], np.diag([1, 4, 9])), moments([0, 0, 2], np.diag([4, 4, 0]))
    )
    assert diagonal == pytest.approx(1 + 4 + (1 - 2) ** 2 + 0 + 3**2, rel=1e-12)


def test_what_does_not_change_it():
    a, b, turn = features(0, width=3), features(1, width=3), Rotation.random(rng=0).as_matrix()
    expected = frechet_distance(of(a), of(b))
    assert frechet_distance(of(b), of(a)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(of(a @ turn + 5), of(b @ turn + 5)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(of(3 * a), of(3 * b)) == pytest.approx(9 * expected, rel=1e-9)
    assert frechet_distance(of(a), of(a)) == pytest.approx(0, abs=1e-9)


def test_batches_in_any_cut_and_order_give_the_moments_of_all():
    x = features(0) + 1e4  # far from zero, where sums of squares would lose their digits
    rng = np.random.default_rng(0)
    for pieces in ([1, 2, 299], [0, 150], [37, 41, 200, 250]):
        cut = np.split(x[rng.permutation(len(x))], pieces)
        found = gathered(np.float64(part) for part in cut)
        assert found.count == 300
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(x.T), rtol=1e-9)
    a, b = of(x[:100]), of(x[100:])
    np.testing.assert_allclose((a + b).covariance, (b + a).covariance, rtol=1e-9)


def test_fewer_images_than_features():
    """No rounding is blown up by a square root: equal sets are at distance 0, and the definition still holds."""
    a, b = features(0, 8, 30), features(1, 11, 30)
    assert frechet_distance(of(a), of(a)) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(of(a), of(b)) == pytest.approx(by_square_root(a, b), rel=1e-5)
    (text,) = cautions(of(a), of(b))
    assert "8 images" in text and "30 features" in text and "biased" in text
    assert cautions(of(features(0)), of(features(1))) == []


def test_fewer_images_are_further_apart():
    """The bias that the caution speaks of: halves of one set seem the further apart the smaller they are."""
    x = np.random.default_rng(0).normal(size=(4000, 20))
    found = [frechet_distance(of(x[:n]), of(x[2000 : 2000 + n])) for n in (10, 20, 100, 2000)]
    assert np.all(np.diff(found) < 0) and found[0] > 10 * found[-1]


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="2 images or more, found 1"):
        frechet_distance(of(features(0, 1)), of(features(0)))
    with pytest.raises(ValueError, match="features of 12 and of 3 numbers"):
        frechet_distance(of(features(0)), of(features(0, width=3)))
    with pytest.raises(ValueError, match="not a finite number"):
        of(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="no image to measure"):
        gathered([])
