"""The scores of disentanglement: closed forms, codes whose score is known, and scikit-learn's information."""

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score

from soda_jax.evaluation import disentanglement as module
from soda_jax.evaluation.disentanglement import (
    by_section,
    dci,
    discretised,
    entropy,
    factor_vae,
    mig,
    mutual_information,
    top_gap,
)
from tests import coded


def scores(importance) -> tuple[float, float]:
    importance = np.asarray(importance, float)
    found = dci(importance, np.ones(importance.shape[1]))
    return found.disentanglement, found.completeness


@pytest.mark.parametrize(
    ("importance", "disentanglement", "completeness"),
    [
        (np.eye(3)[[2, 0, 1]], 1, 1),  # one code a factor, in any order
        (np.repeat(np.eye(3), 2, axis=0) / 2, 1, 1 - np.log(2) / np.log(6)),  # each factor twice: C by (2)
        (np.ones((4, 3)) / 4, 0, 0),  # everything everywhere
        (np.eye(4)[0][:, None] * np.ones((1, 3)), 0, 1),  # one code does it all
        (np.vstack([np.eye(3), np.zeros((2, 3))]), 1, 1),  # codes that nobody uses do not count
        (np.zeros((4, 3)), 0, 0),  # nothing known
        (np.ones((1, 3)), 0, 1),  # a single code can only be complete
        (np.ones((5, 1)), 1, 0),  # a single factor can only be kept apart
    ],
)
def test_known_importances_have_known_scores(importance, disentanglement, completeness):
    assert scores(importance) == pytest.approx((disentanglement, completeness))


def test_codes_weigh_by_their_importance():
    """A pure code of weight 3 and one that is shared by two of three factors, of weight 1."""
    shared = 1 - np.log(2) / np.log(3)
    assert scores([[3, 0, 0], [0, 0.5, 0.5]])[0] == pytest.approx((3 + shared) / 4)


def test_any_importance_agrees_with_the_formula_by_scipy_s_entropy():
    r = np.random.default_rng(0).gamma(0.3, size=(7, 3))
    rows = np.average([1 - scipy_entropy(row, base=3) for row in r], weights=r.sum(1))
    columns = np.average([1 - scipy_entropy(column, base=7) for column in r.T], weights=r.sum(0))
    assert scores(r) == pytest.approx((rows, columns))


def test_informativeness_is_the_mean_accuracy():
    assert dci(np.eye(3), np.array([0.5, 1.0, 0.9])).informativeness == pytest.approx(0.8)


def test_sections_gather_their_dimensions():
    importance = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(by_section(importance, 2), [[3, 5, 7], [15, 17, 19]])
    pairs = np.repeat(np.eye(3), 2, axis=0) / 2
    assert scores(by_section(pairs, 3)) == pytest.approx((1, 1))  # redundant inside a section is complete


# MIG --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [coded.perfect, coded.mixed, coded.noise])
def test_information_is_scikit_learn_s(kind):
    y = coded.factors(300)
    codes = kind(y)
    binned, found = discretised(codes, 20), mutual_information(codes, y)
    theirs = [[mutual_info_score(c, v) for v in y.T] for c in binned.T]
    np.testing.assert_allclose(found, theirs, atol=1e-12)


def test_bins_are_those_of_a_histogram():
    x = coded.noise(coded.factors(300))
    for column, binned in zip(x.T, discretised(x, 20).T, strict=True):
        counts, _ = np.histogram(column.astype(np.float64), 20)
        assert np.abs(np.bincount(binned, minlength=20) - counts).sum() <= 2  # float32 at the edge of a bin
    assert set(discretised(np.ones((5, 2)), 20).ravel()) == {0}


def test_the_gap_of_perfect_codes_is_what_other_codes_tell_by_chance():
    y = coded.factors()
    own = np.concatenate([entropy(np.bincount(v)[None]) for v in y.T])
    information = mutual_information(coded.perfect(y), y)
    np.testing.assert_allclose(np.diag(information[::-1]), own, rtol=1e-6)  # all of it
    assert mig(coded.perfect(y), y) == pytest.approx(1, abs=0.1)
    assert mig(coded.redundant(y), y) == pytest.approx(0, abs=1e-9)  # the copy tells as much
    assert mig(coded.mixed(y), y).mean() < 0.3 and mig(coded.noise(y), y).mean() < 0.05


def test_what_does_not_vary_has_no_gap():
    y = np.zeros((50, 1), np.int32)
    assert mig(coded.noise(y), y) == 0
    assert mig(np.zeros((50, 3)), coded.factors(50)).tolist() == [0, 0, 0]


def test_the_gap_is_between_the_best_two_of_each_factor():
    np.testing.assert_allclose(top_gap(np.array([[0.9, 0.2], [0.5, 0.6], [0.7, 0.5]])), [0.2, 0.1])
    np.testing.assert_allclose(top_gap(np.array([[0.9, 0.2]])), [0.9, 0.2])  # nothing beside it


# FactorVAE --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def few_votes(monkeypatch):
    monkeypatch.setattr(module, "VOTES", 300)
    monkeypatch.setattr(module, "TEST_VOTES", 300)


def vae_score(kind, **more) -> float:
    train, test = coded.factors(600, 0), coded.factors(400, 1)
    return factor_vae((kind(train), train), (kind(test), test), **more)


def test_the_held_factor_is_told_by_perfect_and_by_redundant_codes():
    assert vae_score(coded.perfect) == 1 and vae_score(coded.redundant) == 1


def test_noise_tells_the_held_factor_by_chance():
    """300 votes of three factors: the majority table knows nothing; within 4 standard deviations of a third."""
    assert vae_score(coded.noise) == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 300))


def test_one_code_for_two_factors_can_only_name_one_of_them():
    """Three factors are held equally often; the code of two of them gets the votes of both."""

    def code(y):
        return np.stack([10.0 * y[:, 0] + y[:, 1], y[:, 2]], axis=1)

    train, test = coded.factors(600, 0, (2, 2, 2)), coded.factors(400, 1, (2, 2, 2))
    found = factor_vae((code(train), train), (code(test), test))
    assert found == pytest.approx(2 / 3, abs=4 * np.sqrt(2 / 9 / 300))


def test_dead_codes_have_no_vote():
    train, test = coded.factors(600, 0), coded.factors(400, 1)

    def with_dead(y):
        return np.concatenate([np.zeros((len(y), 2)), coded.perfect(y)], axis=1)

    assert factor_vae((with_dead(train), train), (with_dead(test), test)) == 1
    assert factor_vae((np.zeros((600, 2)), train), (np.zeros((400, 2)), test)) == 0


def test_the_unit_of_a_code_does_not_matter_to_its_votes():
    found = vae_score(coded.mixed, seed=3)
    assert vae_score(lambda y: coded.mixed(y) * np.float32([1e3, 1, 1e-3, 5]), seed=3) == found


def test_a_rotation_by_45_degrees_can_not_be_told():
    """Codes a + b and a - b vary equally whichever of a and b is held: half of the votes, within 4 deviations."""

    def rotated(y):
        return y @ np.array([[1.0, 1.0], [1.0, -1.0]])

    train, test = coded.factors(900, 0, (8, 8)), coded.factors(900, 1, (8, 8))
    found = factor_vae((rotated(train), train), (rotated(test), test))
    assert found == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 300))
    assert dci_of_rotation(rotated(train), train) < 0.1


def dci_of_rotation(codes, y) -> float:
    """Disentanglement by what each code tells of each factor."""
    return scores(mutual_information(codes, y))[0]
