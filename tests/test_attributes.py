"""Detectors of attributes: their fit against scikit-learn, and moves that reach the wanted log-odds exactly."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from soda_jax.editing.attributes import Detector, along_data, arithmetic, logit_of
from soda_jax.evaluation.linear_probe import LinearProbe, normalisation
from soda_jax.evaluation.one_vs_rest import one_vs_rest
from soda_jax.parallel.mesh import make_mesh

RNG = np.random.default_rng(0)
Z = (RNG.normal(size=(300, 3, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]]) + 1).astype(np.float32)
DETECTOR = Detector(weight=RNG.normal(size=(3, 2)).astype(np.float32), bias=0.7)
WAYS = {"normal": None, "data": along_data(DETECTOR.weight, Z)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wanted", [-3.0, 0.0, logit_of(0.9)])
def test_a_move_reaches_the_wanted_log_odds(way, wanted):
    moved = DETECTOR.moved(Z, wanted, WAYS[way])
    np.testing.assert_allclose(DETECTOR.logit(moved), wanted, atol=1e-4)


def test_the_normal_is_the_shortest_way_and_the_data_know_a_likelier_one():
    centred = Z.reshape(300, -1) - Z.reshape(300, -1).mean(0)
    inverse = np.linalg.inv(centred.T @ centred / 300)
    steps = {way: (DETECTOR.moved(Z, 5.0, along) - Z).reshape(300, -1) for way, along in WAYS.items()}
    length = {way: np.linalg.norm(step, axis=1).mean() for way, step in steps.items()}
    unlikely = {way: np.einsum("bi,ij,bj->b", step, inverse, step).mean() for way, step in steps.items()}
    assert length["normal"] < 0.95 * length["data"] and unlikely["data"] < 0.95 * unlikely["normal"]


def test_the_way_with_the_data_is_covariance_times_normal():
    expected = np.cov(Z.reshape(300, -1), rowvar=False, bias=True) @ DETECTOR.weight.ravel()
    np.testing.assert_allclose(WAYS["data"].ravel(), expected, rtol=1e-4)


def test_a_direction_that_the_detector_does_not_see_is_refused():
    blind = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="does not see this direction"):
        DETECTOR.moved(Z, 1.0, blind)


def test_log_odds_of_probabilities():
    assert logit_of(0.5) == 0 and logit_of(0.9) == pytest.approx(np.log(9))
    with pytest.raises(ValueError, match="between 0 and 1, found 1"):
        logit_of(1.0)


def test_sums_of_latents():
    a, b, c = np.arange(18, dtype=np.float32).reshape(3, 3, 2) ** 2
    np.testing.assert_array_equal(arithmetic(a, b, c), c + a - b)


def test_detectors_are_the_logistic_regressions_of_each_class_against_the_rest():
    x = (3 * RNG.normal(size=(400, 5)) * [1, 2, 0.1, 1, 5] + 4).astype(np.float32)
    y = (x @ RNG.normal(size=(5, 3)) + 5 * RNG.normal(size=(400, 3))).argmax(1)
    settings = LinearProbe(learning_rates=(0.1,), weight_decays=(0.1,), images=150_000, batch=200)
    weight, bias = one_vs_rest(x, y, 3, settings, make_mesh(devices=jax.devices()[:1]))
    mean, scale = normalisation(x)
    for i in range(3):
        other = LogisticRegression(C=2 / (400 * 0.1), tol=1e-8).fit((x - mean) * scale, y == i)
        expected = other.decision_function((x - mean) * scale)
        np.testing.assert_allclose(x @ weight[i] + bias[i], expected, atol=0.05)
        assert np.abs(expected).max() > 1
