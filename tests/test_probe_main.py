"""The probe main on a small run: what it writes, what it does not do twice, how it follows and fails."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from experiments import probe
from experiments.probe import follow, probe_if_there, training_has_ended
from experiments.probe_table import table_text
from experiments.probing import prepare
from experiments.runs import open_run
from tests import small_run

KINDS = ("z", "pooled", "untrained", "pixels")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run whose second checkpoint ends it."""
    return small_run.write(tmp_path_factory.mktemp("probe") / "run")


@pytest.fixture(scope="module")
def probed(workdir):
    """The newest step, probed once."""
    assert probe.main([f"--workdir={workdir}"]) == 0
    return workdir / "probe" / "4" / "results.json"


def test_the_results_have_the_promised_form(probed):
    found = json.loads(probed.read_text())
    assert found["step"] == 4 and set(found["labels"]) == {"hue", "bright"}
    for rows in found["labels"].values():
        for kind in KINDS:
            low, high = rows[kind]["linear_ci95"]
            assert 0 <= low <= rows[kind]["linear"] <= high <= 1
            assert 0 <= rows[kind]["knn"] <= 1
    assert found["sizes"] == {"train": 96, "test": 40} and found["classes"] == {"hue": 3, "bright": 2}


def test_what_can_be_read_off_a_pixel_is_read_by_the_probe(probed):
    found = json.loads(probed.read_text())
    assert found["labels"]["hue"]["pixels"]["linear"] > 0.95
    assert found["labels"]["hue"]["pooled"]["linear"] > found["chance"]["hue"]


def test_untrained_is_the_better_on_held_out_training_images(probed):
    found = json.loads(probed.read_text())
    for label, rows in found["labels"].items():
        z, pooled = rows["untrained_z"], rows["untrained_pooled"]
        assert rows["untrained"]["holdout"] == max(z["holdout"], pooled["holdout"])
        linear = rows[f"untrained_{found['untrained_features'][label]}"]
        assert {k: v for k, v in rows["untrained"].items() if not k.startswith("knn")} == {
            k: v for k, v in linear.items() if not k.startswith("knn")
        }
        assert rows["untrained"]["knn"] == max(z["knn"], pooled["knn"])
    assert found["untrained_statistics"] in ("initial", "calibrated")


def test_the_choice_is_from_the_grid_and_made_on_train(probed):
    rows = json.loads(probed.read_text())["labels"]["hue"]["z"]
    assert rows["learning_rate"] == pytest.approx(1e-2) and rows["weight_decay"] in (1e-4, 1e-2)
    held = 24 * 0.25 * 4  # scenes, whole
    assert rows["holdout"] * held == pytest.approx(round(rows["holdout"] * held))


def test_images_of_a_scene_do_not_count_as_many(probed):
    scores = json.loads(probed.read_text())["labels"]["hue"]["pixels"]
    assert scores["linear"] == 1.0  # all right: the interval is that of 10 scenes, not of 40 images
    assert scores["linear_ci95"] == pytest.approx([10 / (10 + 1.959964**2), 1.0], abs=1e-5)


def test_a_probed_step_is_shown_not_probed_again(workdir, probed, capsys):
    before = probed.stat().st_mtime_ns
    assert probe.main([f"--workdir={workdir}", "--step=4"]) == 0
    printed = capsys.readouterr().out
    assert probed.stat().st_mtime_ns == before
    assert "step 4 is probed already" in printed and "hue" in printed


def test_made_again_it_is_the_same_to_the_byte(workdir, probed):
    paths = [probed, workdir / "probe" / "baselines.json"]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert probe.main([f"--workdir={workdir}"]) == 0
    assert [path.read_bytes() for path in paths] == before


def test_the_table_says_what_the_file_says(probed):
    found = json.loads(probed.read_text())
    lines = table_text(found).splitlines()
    assert lines[0].startswith("step 4") and "40 images" in lines[0] and "k = 5" in lines[0]
    row = next(line for line in lines if line.startswith("hue"))
    for kind in KINDS:
        scores = found["labels"]["hue"][kind]
        assert f"{100 * scores['linear']:.1f} [" in row and f"] {100 * scores['knn']:.1f}" in row
    assert f"{found['untrained_statistics']} BatchNorm" in lines[-1] and "16 x 16" in lines[-1]


def test_only_the_averaged_encoder_is_read(workdir):
    run = open_run(workdir)
    whole, part = run.ema_variables(), run.encoder_variables(4)
    assert list(part["params"]) == ["encoder"]
    for name in ("params", "batch_stats"):
        pairs = zip(leaves(part[name]), leaves(whole[name]["encoder"]), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    other = run.encoder_variables(2)
    assert any(not np.array_equal(a, b) for a, b in zip(leaves(part), leaves(other), strict=True))


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_follow_probes_every_checkpoint_and_ends_with_the_training(workdir, probed, capsys):
    follow(workdir, {}, 1.0, wait=lambda seconds: pytest.fail("nothing to wait for"))
    assert json.loads((workdir / "probe" / "2" / "results.json").read_text())["step"] == 2
    printed = capsys.readouterr().out
    assert "training has ended, 2 checkpoint(s) probed" in printed
    assert "baselines: kept from an earlier probe" in printed and "step 4 is probed already" in printed


def test_follow_waits_for_what_is_not_there_yet(workdir, probed, tmp_path):
    """Results of an equal run are there already, so that nothing has to be computed here."""
    run = small_run.write(tmp_path / "run", steps=(2,))
    shutil.copytree(workdir / "probe", run / "probe")
    (run / "probe" / "4").rename(tmp_path / "4")
    waited = []

    def wait(seconds):
        """Training goes on while the probe sleeps."""
        waited.append(seconds)
        small_run.write(run, steps=(4,))
        (tmp_path / "4").rename(run / "probe" / "4")

    assert not training_has_ended(run)
    follow(run, {}, 7.5, wait)
    assert waited == [7.5] and training_has_ended(run)


def test_a_checkpoint_deleted_before_its_turn_is_passed_over(workdir, capsys):
    job = prepare(open_run(workdir))
    assert not probe_if_there(job, 3)
    assert "step 3 was deleted" in capsys.readouterr().out


def test_a_broken_checkpoint_is_an_error(tmp_path, capsys):
    run = small_run.write(tmp_path / "run", steps=(2,))
    for file in (run / "checkpoints" / "2").rglob("d"):
        shutil.rmtree(file)
    assert probe.main([f"--workdir={run}", "--follow"]) == 1
    error = capsys.readouterr().err
    assert "checkpoints/2" in error and len(error.strip().splitlines()) == 1


def test_follow_waits_for_a_training_that_has_not_written_its_config_yet(tmp_path, capsys):
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            (tmp_path / "config.json").write_text("{}")

    probe.wait_for_config(tmp_path, 3.0, wait)
    assert waited == [3.0, 3.0] and f"waiting for {tmp_path}/config.json" in capsys.readouterr().out


def test_a_training_that_diverged_has_ended_until_it_is_started_again(tmp_path):
    run = small_run.write(tmp_path / "run", steps=(2,))
    assert not training_has_ended(run)
    config, failure = run / "config.json", run / "failure" / "step_00000003"
    failure.mkdir(parents=True)
    later = config.stat().st_mtime_ns + 10**9
    os.utime(failure, ns=(later, later))
    assert training_has_ended(run)
    os.utime(config, ns=(later + 1, later + 1))
    assert not training_has_ended(run)
