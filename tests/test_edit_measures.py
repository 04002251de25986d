"""What verdicts add up to, by hand; which classes, couples and training images an edit takes."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.drawing import Draw, numbered_noise
from experiments.editing import attribute, interpolate, mix
from experiments.editing.jury import RELIABLE, Jury, changed, others, share, words
from soda_jax.editing.attributes import Detector
from tests.test_sample_main import artist

TRUTH = {"hue": np.array([0, 1, 2, 0, 1, 1]), "size": np.array([0, 1, 1, 1, 0, 0])}
COUPLES = [(0, 1), (2, 3), (4, 5)]  # they differ in hue: 0-1, 2-0; the third agrees in both


def jury(**accuracies):
    rows = {name: {"accuracy": value, "ci95": [0, 1]} for name, value in accuracies.items()}
    return Jury(judge=None, report=rows)


def test_a_couple_follows_b_stays_with_a_or_drifts():
    seen = {"hue": np.array([[0, 1], [1, 0], [1, 2]])}  # A as it is, A told by B
    found = mix.follows(seen, COUPLES, TRUTH, "hue")
    np.testing.assert_array_equal(found["as_a"], [[True, False], [False, False]])
    np.testing.assert_array_equal(found["as_b"], [[False, True], [False, True]])
    np.testing.assert_array_equal(found["lost"], [[False, True]])


def test_a_path_is_summed_up_over_the_labels_that_count():
    a, b, frames = 0, 1, 4
    seen = {"hue": np.array([[a, 2, b, b]]), "size": np.array([[a, a, a, b]])}
    found = interpolate.summary(seen, [(0, 1)], TRUTH, ["hue", "size"])
    assert found["as_a"] == [1, 0.5, 0.5, 0] and found["as_b"] == [0, 0, 0.5, 1]
    assert found["start_as_a"]["share"] == found["end_as_b"]["share"] == 1
    assert found["neither"]["share"] == 0.25 and found["neither"]["count"] == 2 * (frames - 2)
    assert found["drift"] is None  # they agree in nothing


def test_paths_keep_the_noise_or_go_from_noise_to_noise():
    z, noise = (
        jax.random.normal(jax.random.key(0), (2, 2, 3, 4)),
        jax.random.normal(jax.random.key(1), (2, 2, 8, 8, 1)),
    )
    latents, starts = interpolate.paths(z[0], z[1], noise[0], noise[1])
    latents, starts = (x.reshape(2, 3, interpolate.FRAMES, *x.shape[2:]) for x in (latents, starts))
    for path in range(3):
        np.testing.assert_allclose(latents[:, path, 0], z[0], atol=1e-5)
        np.testing.assert_allclose(latents[:, path, -1], z[1], atol=1e-5)
    np.testing.assert_array_equal(
        starts[:, :2], np.broadcast_to(noise[0][:, None, None], starts[:, :2].shape)
    )
    np.testing.assert_allclose(starts[:, 2, -1], noise[1], atol=1e-6)
    assert np.abs(latents[:, 0] - latents[:, 1]).max() > 0.01


def test_shares_have_the_interval_of_images_not_of_verdicts():
    hits = np.repeat([[True], [False], [True], [True]], 5, axis=1)
    found = share(hits)
    assert found["share"] == 0.75 and found["count"] == 20
    assert found["ci95"] == share(hits[:, :1])["ci95"]


def test_what_changed_is_counted_label_by_label():
    after = {"hue": np.array([0, 1, 0, 0, 1, 1]), "size": 1 - TRUTH["size"]}
    found = changed(TRUTH, after, ["hue", "size"])
    np.testing.assert_array_equal(found[:, 0], [0, 0, 1, 0, 0, 0])
    assert found[:, 1].all()
    edit = attribute.scores(TRUTH, after, "hue", np.array([0, 1, 0, 1, 1, 1]), ["size"])
    assert edit["accuracy"]["share"] == pytest.approx(5 / 6) and edit["drift"]["share"] == 1


def test_labels_that_the_judge_cannot_read_do_not_count():
    found = jury(hue=0.99, size=RELIABLE, yaw=0.3)
    assert found.reliable == ["hue", "size"] and others(found, "hue") == ["size"]
    assert "hue 99%, size 60%, yaw 30%" in words(found) and "(yaw) is left out" in words(found)
    assert jury(yaw=0.3).reliable == ["yaw"]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_every_image_goes_to_a_class_that_it_does_not_have_all_equally_often(count):
    truth = np.zeros(30, int)
    wanted = attribute.wanted_classes(truth, count)
    assert (wanted != truth).all()
    assert np.bincount(wanted, minlength=count).tolist() == [0, *[30 // (count - 1)] * (count - 1)]


def test_training_images_for_sums_are_of_the_right_classes_and_alike_in_the_rest():
    rng = np.random.default_rng(0)
    labels = {name: rng.integers(0, 3, 400) for name in ("hue", "size", "shape")}
    truth = {name: y[:20] for name, y in labels.items()}
    wanted = attribute.wanted_classes(truth["hue"], 3)
    a, b = attribute.partners_of(labels, "hue", truth, wanted, seed=1)
    np.testing.assert_array_equal(labels["hue"][a], wanted)
    np.testing.assert_array_equal(labels["hue"][b], truth["hue"])
    for name in ("size", "shape"):
        np.testing.assert_array_equal(labels[name][a], labels[name][b])


def test_each_image_is_moved_to_the_log_odds_of_its_own_wanted_class():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6, 3, 2)).astype(np.float32)
    detectors = [Detector(weight=w, bias=0.1) for w in rng.normal(size=(3, 3, 2)).astype(np.float32)]
    known = [attribute.class_of(z, z[:2], detector) for detector in detectors]
    wanted = np.array([0, 1, 2, 2, 1, 0])
    found = attribute.edited(z, wanted, known)
    assert list(found) == [f"{way} x {s}" for way in ("normal", "data") for s in ("1", "2", "4")]
    for name, moved in found.items():
        strength = float(name.split(" x ")[1])
        for i, k in enumerate(wanted):
            logit = detectors[k].logit(moved[i : i + 1])[0]
            assert logit == pytest.approx(strength * known[k].typical, abs=1e-3)


def test_a_label_that_is_not_there_is_named_with_those_that_are():
    dataset = SimpleNamespace(labels={"hue": 3, "size": 2}, name="toys")
    studio = SimpleNamespace(
        job=SimpleNamespace(dataset=dataset), arguments=SimpleNamespace(label="", mode="attribute")
    )
    assert attribute.chosen(studio) == ["hue", "size"]
    studio.arguments.label = "size"
    assert attribute.chosen(studio) == ["size"]
    studio.arguments.label = "yaw"
    with pytest.raises(ValueError, match="--label=yaw: the data set has hue, size"):
        attribute.chosen(studio)


def test_drawing_from_a_given_noise_is_drawing_from_the_number_that_it_has():
    _, paint = artist(devices=1)
    z = np.random.default_rng(0).normal(size=(1, 2, 3, 2)).astype(np.float32)
    numbers = np.array([[5, 9]])
    start = np.asarray(numbered_noise(jax.random.key(0), numbers[0], (8, 8, 1)))[None]
    (expected,) = paint([Draw(z=z, noise=numbers)])
    (found,) = paint([Draw(z=z, noise=np.zeros_like(numbers), start=start)])
    assert np.abs(found.astype(int) - expected).max() <= 1 and found.std() > 10
