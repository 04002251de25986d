"""Counts of pixels against scikit-learn, by hand, and over devices; intervals over scenes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from soda_jax.evaluation import segmentation
from soda_jax.evaluation.features import Rows
from soda_jax.evaluation.segmentation import confusion, mean_iou, measure
from soda_jax.parallel.mesh import make_mesh

NAMES = ("wall", "floor", "object")


def images(count=12, classes=3, seed=0, right=0.7):
    """Truth with ignored pixels, and answers most of which are right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (count, 9, 7), np.uint8)
    found = np.where(rng.random(truth.shape) < right, truth, rng.integers(0, classes, truth.shape)).astype(
        np.int32
    )
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, found


def counts_of(truth, found, classes=3):
    return np.asarray(confusion(jnp.asarray(truth), jnp.asarray(found), classes))


def test_counts_are_those_of_scikit_learn_for_each_image():
    truth, found = images()
    counts = counts_of(truth, found)
    for n, t, f in zip(counts, truth, found, strict=True):
        known = t != 255
        np.testing.assert_array_equal(n, confusion_matrix(t[known], f[known], labels=[0, 1, 2]))


@pytest.mark.parametrize("absent", [None, 0, 2])
def test_scores_are_those_of_scikit_learn(absent):
    """Macro averages of the Jaccard index, with the background and without; a class may occur nowhere."""
    truth, found = images()
    if absent is not None:
        truth[truth == absent], found[found == absent] = 1, 1
    result = measure(counts_of(truth, found), np.arange(len(truth)), NAMES)
    t, f = truth[truth != 255], found[truth != 255]
    there = [label for label in range(3) if label != absent]
    assert result["miou"] == pytest.approx(jaccard_score(t, f, labels=there, average="macro"))
    front = [label for label in there if label]
    assert result["miou_without_background"] == pytest.approx(
        jaccard_score(t, f, labels=front, average="macro")
    )
    each = jaccard_score(t, f, labels=there, average=None)
    assert [result["iou"][NAMES[label]] for label in there] == pytest.approx(list(each))
    assert result["accuracy"] == pytest.approx(np.mean(t == f))
    if absent is not None:
        assert result["iou"][NAMES[absent]] is None


def test_counts_over_eight_devices_and_filled_batches_are_those_of_one():
    truth, found = images(11)
    batches = []
    for start in (0, 6):
        rows = np.minimum(np.arange(start, start + 6), 10)
        valid = np.arange(start, start + 6) < 11
        batches.append({"truth": truth[rows], "found": found[rows], "valid": valid, "index": rows})

    def function(variables, batch):
        n = confusion(batch["truth"], batch["found"] + variables, 3)
        return {"n": n, "index": batch["index"], "valid": batch["valid"]}

    for mesh in (None, make_mesh(devices=jax.devices()[:1])):
        whole = Rows(function, mesh).whole(np.zeros((), np.int32), batches)
        np.testing.assert_array_equal(whole["n"], counts_of(truth, found))
        assert whole["index"].tolist() == list(range(11)) and whole.keys() == {"n", "index"}
    with pytest.raises(ValueError, match="there is no image"):
        Rows(function).whole(np.zeros((), np.int32), [{**batches[0], "valid": np.zeros(6, bool)}])


def test_an_example_by_hand():
    truth, found = np.array([[[0, 0, 1, 1, 255]]], np.uint8), np.array([[[0, 1, 1, 2, 2]]], np.int32)
    result = measure(counts_of(truth, found), np.zeros(1, int), NAMES)
    assert result["iou"] == {"wall": 0.5, "floor": pytest.approx(1 / 3), "object": 0.0}
    assert result["miou"] == pytest.approx(5 / 18) and result["accuracy"] == 0.5
    assert result["miou_without_background"] == pytest.approx(1 / 6)
    assert result["miou_ci95"] == [result["miou"]] * 2, "one scene, drawn again and again"


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Scenes of known accuracy 0.7 + 0.3 / 3 = 0.8, drawn anew, of 30 scenes each."""
    inside = 0
    for seed in range(100):
        truth, found = images(30, seed=seed)
        low, high = measure(counts_of(truth, found), np.arange(30), NAMES)["accuracy_ci95"]
        inside += low <= 0.8 <= high
    assert 86 <= inside <= 100


def test_images_of_a_scene_are_drawn_together():
    truth, found = images(16)
    counts = counts_of(truth, found)
    alone = measure(counts, np.arange(16), NAMES)
    same = measure(np.repeat(counts, 4, 0), np.repeat(np.arange(16), 4), NAMES)
    for name in ("miou", "miou_ci95", "accuracy_ci95"):
        assert same[name] == pytest.approx(alone[name]), "four copies of each image tell no more"
    apart = measure(np.repeat(counts, 4, 0), np.arange(64), NAMES)["accuracy_ci95"]
    width = alone["accuracy_ci95"][1] - alone["accuracy_ci95"][0]
    assert apart[1] - apart[0] < 0.7 * width


def test_what_occurs_nowhere_is_no_number():
    assert np.isnan(mean_iou(np.zeros((3, 3)), background=True))
    only_background = np.diag([5.0, 0, 0])
    assert mean_iou(only_background, background=True) == 1
    assert np.isnan(segmentation.intersection_over_union(only_background)[1:]).all()
    with pytest.raises(ValueError, match="a name for each of 3 classes"):
        measure(np.ones((1, 3, 3), int), np.zeros(1, int), NAMES[:2])
