"""The parts of the linear probe: normalisation, split, minibatches, what is refused."""

import dataclasses

import numpy as np
import pytest

from soda_jax.evaluation import linear_probe
from soda_jax.evaluation.linear_probe import LinearProbe, minibatches, normalisation, probe, split_by_group

QUICK = LinearProbe(learning_rates=(1e-2,), weight_decays=(1e-3,), images=3_000, batch=32)


def blobs(count: int = 120):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    return (np.eye(3)[labels] + 0.5 * rng.normal(size=(count, 3))).astype(np.float32), labels[None]


def test_normalised_features_have_mean_0_and_variance_1():
    x = np.random.default_rng(0).normal(50, [1, 2, 3], (500, 3)).astype(np.float32)
    mean, scale = normalisation(x)
    u = (x - mean) * scale
    np.testing.assert_allclose(u.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(u.std(0), 1, rtol=1e-3)


def test_a_feature_that_hardly_varies_is_not_blown_up():
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    x[:, 1], x[:, 2] = 7, 1e-5 * x[:, 2]
    mean, scale = normalisation(x)
    u = (x - mean) * scale
    assert np.all(u[:, 1] == 0) and np.abs(u[:, 2]).max() < 0.02
    assert np.all(np.isfinite(normalisation(np.ones((4, 2), np.float32))[1]))


def test_the_unit_of_the_features_does_not_matter():
    x, y = blobs()
    answers = [
        probe(x * np.float32(unit), y, (3,), np.arange(120), x * np.float32(unit), QUICK)
        for unit in (1, 2**10)
    ]
    np.testing.assert_array_equal(answers[0][0].predicted, answers[1][0].predicted)
    assert answers[0][0].holdout == answers[1][0].holdout


def test_the_same_again_is_the_same_to_the_bit():
    x, y = blobs()
    first, second = (probe(x, y, (3,), np.arange(120), x, QUICK)[0] for _ in range(2))
    np.testing.assert_array_equal(first.predicted, second.predicted)
    other = minibatches(np.arange(120), dataclasses.replace(QUICK, seed=1))
    assert not np.array_equal(minibatches(np.arange(120), QUICK), other)


def test_answers_do_not_depend_on_the_chunks(monkeypatch):
    x, y = blobs()
    whole = probe(x, y, (3,), np.arange(120), x[:100], QUICK)[0]
    monkeypatch.setattr(linear_probe, "PREDICT_ROWS", 7)
    cut = probe(x, y, (3,), np.arange(120), x[:100], QUICK)[0]
    np.testing.assert_array_equal(whole.predicted, cut.predicted)
    assert cut.predicted.shape == (100,) and cut.holdout == whole.holdout


@pytest.mark.parametrize(("holdout", "expected"), [(0.1, 5), (0.5, 25), (0.001, 1), (0.999, 49)])
def test_the_split_keeps_groups_whole_and_loses_no_row(holdout, expected):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(50) * 3, 4))
    fitted, held = split_by_group(groups, holdout, seed=0)
    assert sorted([*fitted, *held]) == list(range(200))
    assert not set(groups[fitted]) & set(groups[held])
    assert len(set(groups[held])) == expected


def test_the_split_depends_on_the_seed_alone():
    held = [split_by_group(np.arange(100), 0.2, seed)[1].tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_minibatches_see_every_row_equally_often():
    rows = np.arange(10, 40)
    order = minibatches(rows, dataclasses.replace(QUICK, images=95, batch=8))
    assert order.shape == (12, 8)  # 95 images, rounded up to whole batches
    counts = np.bincount(order.ravel(), minlength=40)
    assert counts[:10].sum() == 0 and set(counts[10:]) <= {3, 4}
    assert sorted(order.ravel()[:30]) == list(rows)  # one whole pass after the other


def test_a_batch_may_be_larger_than_the_data():
    assert minibatches(np.arange(3), dataclasses.replace(QUICK, images=20, batch=10)).shape == (2, 10)


def test_the_grid_has_every_pair():
    settings = LinearProbe(learning_rates=(1.0, 2.0), weight_decays=(0.0, 3.0))
    assert settings.grid() == [(1.0, 0.0), (1.0, 3.0), (2.0, 0.0), (2.0, 3.0)]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"learning_rates": ()}, "learning_rates"),
        ({"weight_decays": (1.0, -1.0)}, "weight_decays"),
        ({"holdout": 0.0}, "holdout"),
        ({"holdout": 1.0}, "holdout"),
        ({"images": 0}, "images"),
    ],
)
def test_wrong_settings_name_their_key(change, key):
    with pytest.raises(ValueError, match=rf"config\.probe\.{key}"):
        LinearProbe(**change)


def test_a_label_out_of_range_is_refused_before_computing():
    x, y = blobs()
    with pytest.raises(ValueError, match=r"label 0 must be in 0\.\.1, found 0\.\.2"):
        probe(x, y, (2,), np.arange(120), x, QUICK)
    with pytest.raises(ValueError, match=r"found -1\.\.2"):
        probe(x, np.where(np.arange(120) == 5, -1, y), (3,), np.arange(120), x, QUICK)


def test_one_scene_can_not_be_split():
    with pytest.raises(ValueError, match="2 images"):
        split_by_group(np.zeros(8, int), 0.1, 0)
