"""What features are worth: the linear probe and the nearest neighbours of every label, with intervals."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from soda_jax.evaluation.features import Table
from soda_jax.evaluation.intervals import accuracy_interval
from soda_jax.evaluation.linear_probe import Answer, LinearProbe, probe
from soda_jax.evaluation.nearest_neighbours import neighbours, vote

Scores = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How features are judged: the grid of heads, and k of k-NN."""

    linear: LinearProbe
    knn_k: int = 20


def measure(
    train: Table,
    test: Table,
    feature: str,
    classes: Mapping[str, int],
    settings: Settings,
    augmented: Table | None = None,
) -> dict[str, Scores]:
    """label -> {"linear", "linear_ci95", "knn", "knn_ci95", "holdout", "learning_rate", "weight_decay"}.

    Accuracies are those of the test split, in 0..1, but for `holdout`: the chosen head's on the held-out part
    of train. `augmented` holds altered copies of training images: heads are fitted on them too, and no
    neighbours are sought among them.
    """
    answers = answer(train, test, feature, classes, settings.linear, augmented)
    near = neighbours(train.features[feature], test.features[feature], settings.knn_k)
    return {
        label: _scores(answers[label], vote(train.labels[label][near], count), test, label)
        for label, count in classes.items()
    }


def answer(
    train: Table,
    test: Table,
    feature: str,
    classes: Mapping[str, int],
    settings: LinearProbe,
    augmented: Table | None = None,
) -> dict[str, Answer]:
    """label -> the linear probe's Answer; the labels of `test` are not looked at."""
    tables = [train] if augmented is None else [train, augmented]
    labels = np.stack([np.concatenate([table.labels[name] for table in tables]) for name in classes])
    found = probe(
        np.concatenate([table.features[feature] for table in tables]),
        labels,
        tuple(classes.values()),
        np.concatenate([table.groups for table in tables]),
        test.features[feature],
        settings,
        np.arange(labels.shape[1]) < len(train),
    )
    return dict(zip(classes, found, strict=True))


def _scores(linear: Answer, near: Int[np.ndarray, " q"], test: Table, label: str) -> Scores:
    truth = test.labels[label]
    accuracy, interval = accuracy_interval(linear.predicted == truth, test.groups)
    knn, knn_interval = accuracy_interval(near == truth, test.groups)
    return {
        "linear": accuracy,
        "linear_ci95": list(interval),
        "knn": knn,
        "knn_ci95": list(knn_interval),
        "holdout": linear.holdout,
        "learning_rate": linear.learning_rate,
        "weight_decay": linear.weight_decay,
    }


def chance(train: Table, test: Table, label: str, classes: int) -> float:
    """Test accuracy of always naming the class that is commonest in train."""
    commonest = np.bincount(train.labels[label], minlength=classes).argmax()
    return float(np.mean(test.labels[label] == commonest))


def f1(predicted: Int[np.ndarray, " q"], truth: Int[np.ndarray, " q"]) -> float:
    """2 TP / (2 TP + FP + FN) of class 1; 0 where no answer and no truth is 1 (as scikit-learn's f1_score)."""
    hits, wrong = np.sum((predicted == 1) & (truth == 1)), np.sum((predicted == 1) != (truth == 1))
    return float(2 * hits / max(1, 2 * hits + wrong))
