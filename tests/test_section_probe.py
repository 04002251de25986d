"""The probe of each section alone: it is the linear probe, section by section; and F1."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from soda_jax.evaluation.features import Table
from soda_jax.evaluation.linear_probe import LinearProbe, probe
from soda_jax.evaluation.scores import f1
from soda_jax.evaluation.section_probe import cut, section_accuracy

SETTINGS = LinearProbe(
    learning_rates=(1e-2, 3e-2), weight_decays=(1e-4, 1e-1), images=3200, batch=64, holdout=0.25
)
CLASSES = {"shape": 3, "size": 2}


def table(count: int, seed: int) -> Table:
    """Section 0 knows the shape, section 1 the size, section 2 nothing; four views a scene."""
    rng = np.random.default_rng(seed)
    scenes = np.arange(count) // 4
    shape, size = (rng.integers(0, k, count)[scenes] for k in CLASSES.values())
    z = rng.normal(size=(count, 6)).astype(np.float32)
    z[:, :2] += 3 * np.array([[0, 0], [1, 0], [0, 1]])[shape]
    z[:, 2] += 4 * size
    labels = {"shape": shape.astype(np.int32), "size": size.astype(np.int32)}
    return Table(features={"z": z}, labels=labels, index=np.arange(count), groups=scenes)


@pytest.fixture(scope="module")
def tables() -> tuple[Table, Table]:
    return table(320, 0), table(200, 1)


def test_each_section_answers_as_the_linear_probe_does_on_it_alone(tables):
    train, test = tables
    found = section_accuracy(train, test, 3, CLASSES, SETTINGS)
    y = np.stack([train.labels[name] for name in CLASSES])
    for i in range(3):
        x, queries = (t.features["z"][:, 2 * i : 2 * i + 2] for t in tables)
        answers = probe(x, y, tuple(CLASSES.values()), train.groups, queries, SETTINGS)
        right = [np.mean(a.predicted == test.labels[name]) for a, name in zip(answers, CLASSES, strict=True)]
        assert found[i] == pytest.approx(right, abs=0.011)  # two of 200 may turn on rounding


def test_sections_know_what_was_put_into_them(tables):
    found = section_accuracy(*tables, 3, CLASSES, SETTINGS)
    assert found[0, 0] > 0.8 and found[1, 1] > 0.9
    assert max(found[1, 0], found[2, 0]) < 0.5 and max(found[0, 1], found[2, 1]) < 0.7


def test_sections_are_cut_as_the_latent_is():
    z = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(cut(z, 3)[1], [[2, 3], [8, 9]])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_f1_is_scikit_learn_s(share):
    rng = np.random.default_rng(0)
    truth, predicted = ((rng.uniform(size=80) < share).astype(np.int32) for _ in range(2))
    assert f1(predicted, truth) == pytest.approx(f1_score(truth, predicted, zero_division=0))
