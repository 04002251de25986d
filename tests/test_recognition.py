"""How often a judge reads the labels off novel views."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import recognition, sample
from experiments.editing.jury import summon
from experiments.held_out import pairs_of, scenes_of
from experiments.probing import Job, settings_of
from experiments.runs import open_run
from tests import posed_run, prepared_data

SCENES, SAMPLES, IMAGES = 5, 2, 384


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with a checkpoint at step 2."""
    return posed_run.write(tmp_path_factory.mktemp("run"))


def test_shares_are_those_of_the_judge_on_the_very_views(workdir):
    """Against verdicts by hand; where the true views are what was drawn, they are read as often."""
    run, dataset = open_run(workdir), prepared_data.posed()
    scenes = scenes_of(dataset, SCENES, seed=0)
    pairs = pairs_of(scenes, run.config)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (len(pairs.row), SAMPLES, 16, 16, 3), np.uint8)
    views = {"soda": np.repeat(pairs.targets[:, None], SAMPLES, axis=1), "regressor": noise}
    found = recognition.recognised(run, dataset, IMAGES, scenes, pairs, views)["shape"]
    assert found["one_sample"] == found["mean"] == found["true"]
    jury = summon(Job(run=run, dataset=dataset, settings=settings_of(run.config)), IMAGES)
    truth = [scenes[row].example["labels"]["shape"] for row in pairs.row]
    for kind, images in (("true", pairs.targets), ("regressor", noise[:, 0])):
        assert found[kind]["share"] == pytest.approx(np.mean(jury(images)["shape"] == truth))
        low, high = found[kind]["ci95"]
        assert 0 <= low <= found[kind]["share"] <= high <= 1


def test_the_mean_image_is_rounded():
    samples = np.array([[0, 1], [254, 255]], np.uint8).reshape(2, 2, 1, 1, 1)
    assert recognition.mean_image(samples).ravel().tolist() == [0, 254]  # 0.5 and 254.5, to the even number


def test_the_main_asks_the_judge_and_shows_what_it_said(workdir, capsys):
    arguments = [
        f"--workdir={workdir}",
        "--mode=novel_views",
        "--scenes=2",
        "--samples=1",
        "--regressor=none",
    ]
    assert sample.main(arguments) == 0
    folder = workdir / "novel_views" / "2"
    plain = json.loads((folder / "results.json").read_text())
    assert "recognised" not in plain and "judge_images" not in plain["made_from"]["settings"]
    capsys.readouterr()
    assert sample.main([*arguments, f"--judge_images={IMAGES}"]) == 0
    found = json.loads((folder / "results.json").read_text())
    assert list(found["recognised"]) == ["shape"]
    assert list(found["recognised"]["shape"]) == ["one_sample", "mean", "true"]
    assert found["made_from"]["settings"]["judge_images"] == IMAGES
    told = capsys.readouterr().out
    assert "true views" in told and "reads the scene's label off a view" in told
    tables = json.loads((folder / "exhibit.json").read_text())["tables"]
    assert [row[0] for row in tables[1]["rows"]] == ["one sample", "mean of the samples", "true views"]


@pytest.mark.parametrize(
    ("changes", "images", "words"),
    [
        ({}, -1, r"--judge_images must be 0 \(no judge\) or more, found -1"),
        ({"labels": {}}, 10, r"--judge_images=10: a judge reads labels, and data set 'posed' has none"),
    ],
)
def test_without_time_or_labels_there_is_no_judge(changes, images, words):
    with pytest.raises(ValueError, match=words):
        recognition.check(dataclasses.replace(prepared_data.posed(), **changes), images)
