"""The main of the report: what it reads from a run's folder, and what it says of one it cannot read."""

import json

import numpy as np
import pytest

from experiments import report
from experiments.report import MOST_HISTORY, main, read
from soda_jax.report.figures import save_grid
from tests import small_run
from tests.made_up_run import LABELS, config, write_run


@pytest.fixture
def folder(tmp_path):
    """A run without probes and pictures."""
    return write_run(tmp_path / "run", steps=20, probes=(), pictures=False)


def draw(folder, name, description=""):
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    return save_grid(folder / "samples" / name, [("", pixels)], description=description)


def test_the_main_writes_the_page_and_says_where(folder, capsys):
    assert main([f"--workdir={folder}"]) == 0
    assert capsys.readouterr().out == f"report written: {folder}/report.html\n"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_the_same_folder_gives_the_same_page(folder):
    first = report.report(folder).read_bytes()
    assert report.report(f"{folder}/").read_bytes() == first


def test_all_that_the_folder_says_is_read(folder):
    record = read(folder)
    assert record.config == config() and record.classes == LABELS and record.sizes["test"] == 512
    assert record.default["train"]["batch"] == 512 and record.config["train"]["batch"] == 32
    assert record.versions["flax"] == "0.12.8"
    assert [line.split()[2] for line in record.commands] == [
        f"experiments.{name}" for name in ("train", "probe", "sample", "report")
    ]
    assert len(record.metrics) == 4 and record.probes == {} and record.pictures == {}


def test_the_newest_checkpoint_says_how_far_the_run_is(folder, tmp_path):
    trained = read(small_run.write(tmp_path / "trained"))
    assert trained.saved == {"images": 4 * trained.config["train"]["batch"], "seconds": 2.5}
    assert read(folder).saved == {}


def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, capsys):
    workdir = small_run.write(tmp_path / "trained")
    (workdir / "checkpoints" / "4" / "_CHECKPOINT_METADATA").write_text("damaged")
    assert main([f"--workdir={workdir}"]) == 0
    assert f"{workdir}/checkpoints/4/_CHECKPOINT_METADATA" in capsys.readouterr().err
    record = read(workdir)
    assert record.saved == {"images": 2 * record.config["train"]["batch"], "seconds": 2.5}


def test_the_newest_picture_of_each_kind_is_taken_by_number_not_by_letter(folder):
    for step in (9, 100, 20):
        draw(folder, f"{step}_views.png", f"step {step}")
    draw(folder, "9_sections.png", "step 9")
    pictures = read(folder).pictures
    assert {kind: p.description for kind, p in pictures.items()} == {
        "views": "step 100",
        "sections": "step 9",
    }


@pytest.mark.parametrize(
    ("count", "kept"),
    [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (10, [0, 3, 6, 9]), (100, [0, 33, 66, 99])],
)
def test_of_many_grids_of_training_some_are_kept_first_and_last_among_them(folder, count, kept):
    for step in range(count):
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / f"step_{step:08d}.png").touch()
    chosen = report.spread(sorted((folder / "samples").glob("step_*.png")), MOST_HISTORY)
    assert [report.step_of(path) for path in chosen] == kept


def test_grids_of_training_come_oldest_first(folder):
    for step in (3, 20, 100):
        draw(folder, f"step_{step:08d}.png")
    assert list(read(folder).history) == ["step 3", "step 20", "step 100"]


def test_probes_are_ordered_by_step_and_other_folders_left_alone(folder):
    for name in ("100", "9", "notes"):
        (folder / "probe" / name).mkdir(parents=True)
        (folder / "probe" / name / "results.json").write_text(json.dumps({"step": name, "labels": {}}))
    (folder / "probe" / "200").mkdir()  # begun, not finished
    assert list(read(folder).probes) == [9, 100]


def test_a_line_of_metrics_that_was_cut_short_is_left_out(folder):
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 21, "ima')
    assert len(read(folder).metrics) == 4


def test_a_damaged_file_is_named_with_what_to_do(folder, capsys):
    path = folder / "probe" / "5" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert main([f"--workdir={folder}"]) == 1
    error = capsys.readouterr().err
    assert f"{path} is not JSON" in error and "delete it" in error and error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}/none"]) == 1
    error = capsys.readouterr().err
    assert f"--workdir={tmp_path}/none" in error and error.count("\n") == 1


def test_a_probe_of_one_label_makes_a_page(folder):
    scores = {"linear": 0.84, "linear_ci95": [0.83, 0.85], "knn": 0.8}
    labels = {"label": {name: scores for name in ("z", "pooled", "untrained", "pixels")}}
    (folder / "probe" / "20").mkdir(parents=True)
    (folder / "probe" / "20" / "results.json").write_text(json.dumps({"step": 20, "labels": labels}))
    assert "tells the class right on 84.0%" in report.report(folder).read_text()
