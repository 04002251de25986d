"""The linear probe: scikit-learn's answers, independence of the heads, a choice that can't leak."""

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from soda_jax.evaluation.linear_probe import (
    LinearProbe,
    fit_heads,
    held_out_accuracy,
    minibatches,
    normalisation,
    probe,
    split_by_group,
)

QUICK = LinearProbe(learning_rates=(1e-2,), weight_decays=(1e-3,), images=10_000, batch=64)


def correlated(count: int, classes: int, seed: int, width: int = 12):
    """Overlapping clusters in correlated features of very different units, with an offset."""
    world, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres, mix = world.normal(size=(classes, width)), world.normal(size=(width, width))
    labels = rng.integers(0, classes, count)
    x = (centres[labels] + 1.2 * rng.normal(size=(count, width))) @ mix
    return (x * np.geomspace(1e-2, 1e2, width) + 3).astype(np.float32), labels


def objective(kernel, bias, u, labels, decay: float) -> float:
    """(2), in float64."""
    scores = u.astype(np.float64) @ kernel + bias
    top = scores.max(1, keepdims=True)
    entropy = np.log(np.exp(scores - top).sum(1)) + top[:, 0] - scores[np.arange(len(u)), labels]
    return float(entropy.mean() + decay / 2 * np.sum(kernel**2))


def grid_of(rates, decays, labels: int):
    rows = [np.repeat(np.asarray(v, np.float32)[:, None], labels, axis=1) for v in (rates, decays)]
    return rows[0], rows[1]


def heads(x, y, classes, settings=QUICK, rates=(1e-2,), decays=(1e-3,)):
    """Kernel [r, l, n, k] and bias [r, l, k] fitted on all rows."""
    real = np.arange(max(classes))[None] < np.asarray(classes)[:, None]
    order = minibatches(np.arange(len(x)), settings)
    rates, decays = grid_of(rates, decays, len(y))
    fitted = fit_heads(x, normalisation(x), order, y.astype(np.int32), real, rates, decays)
    return np.asarray(fitted["kernel"]), np.asarray(fitted["bias"])


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_a_head_reaches_the_optimum_of_scikit_learn(decay):
    x, labels = correlated(1500, 4, 0)
    mean, scale = normalisation(x)
    u = (x - mean) * scale
    theirs = LogisticRegression(C=1 / (len(x) * decay), max_iter=500, tol=1e-8).fit(u, labels)
    best = objective(theirs.coef_.T, theirs.intercept_, u, labels, decay)
    long = dataclasses.replace(QUICK, images=60_000)
    kernel, bias = heads(x, labels[None], (4,), long, rates=(3e-2,), decays=(decay,))
    assert best - 1e-6 < objective(kernel[0, 0], bias[0, 0], u, labels, decay) < best + 3e-3


def test_digits_within_half_a_point_of_scikit_learn():
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x, y = digits.data[order].astype(np.float32), digits.target[order]
    train, test = slice(0, 1100), slice(1100, None)
    settings = LinearProbe(learning_rates=(3e-3, 1e-2), weight_decays=(1e-3, 1e-2), images=60_000, batch=128)
    ours = probe(x[train], y[None, train], (10,), np.arange(1100), x[test], settings)[0]
    mean, scale = normalisation(x[train])
    theirs = LogisticRegression(C=1 / (1100 * ours.weight_decay), max_iter=500)
    theirs.fit((x[train] - mean) * scale, y[train])
    expected = theirs.score((x[test] - mean) * scale, y[test])
    assert abs(np.mean(ours.predicted == y[test]) - expected) < 0.005
    assert expected > 0.94 and abs(ours.holdout - expected) < 0.04


def test_every_head_is_as_if_it_were_alone():
    x, first = correlated(400, 3, 0)
    y = np.stack([first, np.random.default_rng(0).integers(0, 5, 400), (x[:, 0] > 3).astype(int)])
    classes, rates, decays = (3, 5, 2), (1e-3, 1e-2), (1e-4, 1e-1)
    kernel, bias = heads(x, y, classes, rates=rates, decays=decays)
    for row in range(2):
        for label, count in enumerate(classes):
            alone = heads(x, y[[label]], (count,), rates=[rates[row]], decays=[decays[row]])
            np.testing.assert_allclose(kernel[row, label, :, :count], alone[0][0, 0], atol=1e-5)
            np.testing.assert_allclose(bias[row, label, :count], alone[1][0, 0], atol=1e-5)


def test_a_class_that_a_label_does_not_have_is_never_the_answer():
    x, labels = correlated(300, 7, 0)
    y = np.stack([labels, labels % 2])
    answers = probe(x, y, (7, 2), np.arange(300), 100 * x, QUICK)
    assert answers[1].predicted.max() == 1 and answers[0].predicted.max() > 1


def test_each_label_takes_its_own_row_of_the_grid():
    # The first label is plain; the second is noise: strong decay keeps it from being learned by heart.
    x, labels = correlated(300, 2, 0, 40)
    noise = (np.random.default_rng(1).random(300) < 0.2).astype(int)
    settings = LinearProbe(learning_rates=(1e-2,), weight_decays=(1e-6, 10.0), images=10_000, batch=64)
    plain, noisy = probe(x, np.stack([labels, noise]), (2, 2), np.arange(300), x[:5], settings)
    assert (plain.weight_decay, noisy.weight_decay) == (1e-6, 10.0)
    assert plain.holdout > 0.9 and noisy.holdout > 0.6


def test_the_choice_can_not_recognise_a_scene():
    # 8 equal views of 60 scenes with labels drawn at random: known by heart unless a scene is held out whole.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(60, 100)).astype(np.float32), 8, axis=0)
    y = np.repeat(rng.integers(0, 2, 60), 8)[None]
    settings = dataclasses.replace(QUICK, holdout=0.3)
    assert held_out_accuracy(x, y, (2,), np.arange(480), settings)[0] > 0.99
    assert held_out_accuracy(x, y, (2,), np.repeat(np.arange(60), 8), settings)[0] < 0.75


def test_altered_copies_are_fitted_on_but_never_judge():
    x, labels = correlated(200, 2, 0)
    wrong = np.concatenate([x, x]), np.concatenate([labels, 1 - labels])[None]
    groups, clean = np.tile(np.arange(200), 2), np.arange(400) < 200
    settings = dataclasses.replace(QUICK, holdout=0.5)
    judged_by_all = probe(*wrong, (2,), groups, x[:3], settings)[0].holdout
    assert judged_by_all == pytest.approx(0.5, abs=1e-9)  # each image once right and once wrong
    alone = held_out_accuracy(x, labels[None], (2,), np.arange(200), settings)[0]
    good = np.concatenate([x, x]), np.concatenate([labels, labels])[None]
    assert probe(*good, (2,), groups, x[:3], settings, clean)[0].holdout == pytest.approx(alone, abs=0.05)
    assert probe(*wrong, (2,), groups, x[:3], settings, clean)[0].holdout != pytest.approx(0.5, abs=1e-9)


def test_the_head_that_answers_is_fitted_on_all_of_train():
    # Class 2 exists in one group only: whichever part is held out, the answer must still know it.
    x, labels = correlated(90, 2, 0)
    x[80:], labels[80:] = 500.0, 2
    groups = np.minimum(np.arange(90), 80)
    for seed in range(40):
        _, held = split_by_group(groups, 0.1, seed)
        if 85 in held:
            break
    answer = probe(x, labels[None], (3,), groups, x[85:86], dataclasses.replace(QUICK, seed=seed))[0]
    assert answer.predicted.tolist() == [2] and answer.holdout < 0.9
