"""The main that edits, on a small run: what a mode writes and finds again, what it refuses. All: test_edit_modes.py."""

import json

import pytest

from experiments import edit
from soda_jax.report import exhibit
from tests import posed_run, small_edits, small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run on which z has been mixed."""
    folder = small_edits.write(tmp_path_factory.mktemp("edit") / "run")
    assert edit.main(small_edits.arguments(folder, "mix")) == 0
    return folder


def test_a_mode_leaves_pictures_measures_and_an_exhibit(workdir):
    small_edits.check(workdir, "mix")
    assert [found.exhibit.title for found in exhibit.find(workdir)] == ["Editing: sections mixed"]


def test_the_same_command_finds_what_is_there_and_a_broken_folder_is_made_anew(workdir, capsys):
    path = workdir / "edit" / "mix" / "results.json"
    before = path.stat().st_mtime_ns
    assert edit.main(small_edits.arguments(workdir, "mix")) == 0
    assert "mix of step 4 is there already" in capsys.readouterr().out and path.stat().st_mtime_ns == before
    (path.parent / "mix.png").unlink()
    assert edit.main(small_edits.arguments(workdir, "mix")) == 0
    assert path.stat().st_mtime_ns != before and (path.parent / "mix.png").exists()
    assert "training the judge" not in capsys.readouterr().out  # it is kept


def test_shares_add_up_and_have_intervals(workdir):
    rows = small_edits.results(workdir, "mix")["measures"]["from_b"]
    assert list(rows) == ["none", "coarse", "middle", "fine", "all"]
    for row in rows.values():
        low, high = row["as_a"]["ci95"]
        assert 0 <= low <= row["as_a"]["share"] <= high <= 1
        assert row["as_a"]["share"] + row["as_b"]["share"] <= 1


def test_what_cannot_be_done_is_said_in_one_line(workdir, tmp_path, capsys):
    for given, words in [
        (small_edits.arguments(tmp_path, "mix"), "expected a run"),
        (
            small_edits.arguments(workdir, "attribute", "--label=size"),
            "--label=size: the data set has bright, hue",
        ),
        (small_edits.arguments(workdir, "mix", "--images=1"), "--images must be 2 or more, found 1"),
        (
            small_edits.arguments(workdir, "explorer", "--count=10"),
            "--count=10: the explorer shows 9 images or fewer",
        ),
        (small_edits.arguments(workdir, "mix", "--step=7"), "--step=7"),
    ]:
        assert edit.main(given) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_z_of_a_denoiser_that_looks_at_the_sources_is_not_edited(tmp_path, capsys):
    posed_run.write(tmp_path, changes={"model.cross_attention": True})
    assert edit.main(small_edits.arguments(tmp_path, "mix")) == 1
    assert "config.model.cross_attention=True" in capsys.readouterr().err


def test_data_without_labels_are_edited_and_not_judged(tmp_path, capsys):
    folder = small_run.write(tmp_path / "plain", steps=(4,), name="unlabelled", labelled=False)
    assert edit.main(small_edits.arguments(folder, "attribute")) == 1
    assert "--mode=attribute needs labels, and data set 'unlabelled' has none" in capsys.readouterr().err
    assert edit.main(small_edits.arguments(folder, "mix")) == 0
    results = json.loads((folder / "edit" / "mix" / "results.json").read_text())
    assert list(results["measures"]) == ["sections"] and not (folder / "edit" / "judge").exists()
