"""Importances by scikit-learn's classifiers: known codes, the trees' twins, single codes."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from soda_jax.evaluation import importance as module
from soda_jax.evaluation.disentanglement import dci, top_gap
from soda_jax.evaluation.importance import importance, single_code_accuracy, standardised
from tests import coded

KINDS = ("boosting", "histogram", "linear")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 8)


def found(codes, kind, **more):
    """Importance and accuracies on 240 training and 200 test examples."""
    train, test = coded.factors(240, 0), coded.factors(200, 1)
    return importance((codes(train), train), (codes(test), test), kind, **more)


def uneven(y):
    """Sums of all factors with other weights in each code, and noise: no two codes tell the same."""
    rng = np.random.default_rng(len(y))
    return y @ np.random.default_rng(3).normal(size=(3, 5)) + 0.2 * rng.normal(size=(len(y), 5))


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_codes_score_one(kind):
    weights, accuracy = found(coded.perfect, kind)
    scores = dci(weights, accuracy)
    assert weights.sum(axis=0) == pytest.approx(1) and np.argmax(weights, axis=0).tolist() == [2, 1, 0]
    if kind == "linear":  # a middle class has no threshold of its own, so that line leans on other codes too
        assert scores.disentanglement > 0.99 and scores.completeness > 0.99
    else:
        assert (scores.disentanglement, scores.completeness) == pytest.approx((1, 1), abs=1e-6)
        assert scores.informativeness == 1


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_codes_know_it_all_and_keep_nothing_apart(kind):
    scores = dci(*found(coded.mixed, kind))
    assert scores.disentanglement < 0.5 and scores.completeness < 0.5 and scores.informativeness > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_noise_knows_no_more_than_chance(kind):
    _, accuracy = found(coded.noise, kind)
    chance = 1 / np.array(coded.CLASSES)
    assert np.all(np.abs(accuracy - chance) < 4 * np.sqrt(chance * (1 - chance) / 200))


def test_redundant_codes_are_apart_and_not_complete():
    """Trees of scikit-learn's own draw one of two equal codes at each split."""
    scores = dci(*found(coded.redundant, "boosting"))
    assert scores.disentanglement == pytest.approx(1, abs=1e-6)
    assert scores.completeness == pytest.approx(1 - np.log(2) / np.log(6), abs=0.1)


def test_boosting_is_the_classifier_of_the_literature():
    train, test = coded.factors(240, 0), coded.factors(200, 1)
    weights, accuracy = found(coded.mixed, "boosting")
    scaler = StandardScaler().fit(coded.mixed(train).astype(np.float64))
    x, queries = (scaler.transform(coded.mixed(y).astype(np.float64)) for y in (train, test))
    for j in range(3):
        model = GradientBoostingClassifier(n_estimators=8, random_state=0).fit(x, train[:, j])
        np.testing.assert_allclose(weights[:, j], model.feature_importances_, atol=1e-6)
        assert accuracy[j] == pytest.approx(accuracy_score(test[:, j], model.predict(queries)))


def test_trees_on_bins_weigh_codes_as_exact_trees_do():
    exact, binned = found(uneven, "boosting"), found(uneven, "histogram")
    np.testing.assert_allclose(binned[0], exact[0], atol=0.05)
    np.testing.assert_allclose(binned[1], exact[1], atol=0.03)
    assert dci(*binned).disentanglement == pytest.approx(dci(*exact).disentanglement, abs=0.03)


def test_threads_and_units_change_nothing():
    alone = found(coded.mixed, "histogram")
    shared = found(lambda y: coded.mixed(y) * np.float32(64), "histogram", threads=3)
    np.testing.assert_allclose(alone[0], shared[0], atol=1e-9)
    np.testing.assert_array_equal(alone[1], shared[1])


def test_results_are_shown_as_they_come():
    seen = []

    def show(results):
        for result in results:
            seen.append(result)
            yield result

    found(coded.perfect, "linear", show=show)
    assert len(seen) == 3


@pytest.mark.parametrize("measure", [lambda *pair: importance(*pair, "linear"), single_code_accuracy])
def test_a_factor_of_one_value_is_named(measure):
    y = coded.factors(60)
    y[:, 1] = 2
    with pytest.raises(
        ValueError, match=r"factors \[1\] have one value only among 60 .*disentanglement.images"
    ):
        measure((coded.noise(y), y), (coded.noise(y), y))


def test_standardised_by_train_alone():
    train, test = standardised(np.array([[1.0, 5], [3, 5]]), np.array([[5.0, 6]]))
    assert train.tolist() == [[-1, 0], [1, 0]] and test.tolist() == [[3, 0]]


# SAP --------------------------------------------------------------------------------------------------------


def single(codes):
    train, test = coded.factors(240, 0, (2, 2, 2)), coded.factors(200, 1, (2, 2, 2))
    return single_code_accuracy((codes(train), train), (codes(test), test))


def test_a_code_alone_answers_as_scikit_learn_s_machine_does():
    train, test = coded.factors(240, 0, (2, 2, 2)), coded.factors(200, 1, (2, 2, 2))
    scores = single_code_accuracy((coded.noise(train), train), (coded.noise(test), test))
    scaler = StandardScaler().fit(coded.noise(train))
    for i, j in ((0, 1), (3, 2)):
        model = LinearSVC(C=0.01, class_weight="balanced", random_state=0)  # the dual of the same problem
        model.fit(scaler.transform(coded.noise(train))[:, [i]], train[:, j])
        right = model.predict(scaler.transform(coded.noise(test))[:, [i]]) == test[:, j]
        assert scores[i, j] == pytest.approx(right.mean(), abs=0.02)


def test_perfect_codes_are_far_ahead_of_others_and_redundant_ones_are_not():
    assert top_gap(single(coded.perfect)) == pytest.approx(0.5, abs=0.15)  # all right, and chance
    assert top_gap(single(coded.redundant)).tolist() == [0, 0, 0]
    assert top_gap(single(coded.noise)).mean() < 0.1
