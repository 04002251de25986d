"""--tasks of the probe on a small run: what is added to the results and the page, and what is not done twice."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from experiments import probe, report
from experiments.probe import follow
from experiments.probe_tasks import NAMES, kept, with_tasks
from experiments.probing import prepare
from experiments.runs import open_run
from soda_jax.evaluation import disentanglement, importance
from tests import small_run

FIGURES = {"disentanglement", "completeness", "informativeness"}
LABELS = ["bright", "hue"]


@pytest.fixture(autouse=True, scope="module")
def short():
    """Few trees, few votes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "ROUNDS", 3)
        patch.setattr(disentanglement, "VOTES", 300)
        patch.setattr(disentanglement, "TEST_VOTES", 200)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run that was probed without tasks."""
    workdir = small_run.write(tmp_path_factory.mktemp("tasks") / "run", steps=(4,))
    assert probe.main([f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def whole(plain, tmp_path_factory):
    """The same, and every task."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(plain, workdir)
    assert probe.main([f"--workdir={workdir}", f"--tasks={','.join(NAMES)}"]) == 0
    return workdir


def results(workdir) -> dict:
    return json.loads((workdir / "probe" / "4" / "results.json").read_text())


def test_tasks_add_blocks_and_change_nothing_else(plain, whole):
    before, after = results(plain), results(whole)
    assert list(after) == [*before, "dci", "mig", "sap", "factor_vae", "sections", "f1"]
    assert {name: after[name] for name in before} == before


def test_dci_has_the_promised_form(whole):
    found = results(whole)["dci"]
    for block in (found, found["linear"], found["untrained"], found["untrained"]["linear"]):
        for part in ("z", "sections"):
            assert set(block[part]) == FIGURES and all(0 <= v <= 1 for v in block[part].values())
    sections = open_run(whole, 4).method.sections
    weights = np.array(found["importance"])
    assert weights.shape == (sections, 2) and weights.sum(axis=0) == pytest.approx(1)
    assert list(found["accuracy"]) == LABELS and found["trees"] == "histogram" and found["images"] == 96


def test_scores_of_single_dimensions_are_there_for_both_encoders(whole):
    found = results(whole)
    for name in ("mig", "sap"):
        for block in (found[name], found[name]["untrained"]):
            assert block["z"] == pytest.approx(np.mean(list(block["labels"].values())))
            assert list(block["labels"]) == LABELS
    assert 0.3 < found["factor_vae"]["z"] <= 1 and 0.3 < found["factor_vae"]["untrained"]["z"] <= 1


def test_no_section_knows_more_than_chance_and_all_of_them_most(whole):
    found = results(whole)["sections"]
    alone = np.array(found["linear"])
    assert alone.shape == (open_run(whole, 4).method.sections, 2) and found["labels"] == LABELS
    assert found["whole"]["hue"] >= alone[:, 1].max() - 0.1 and found["whole"]["hue"] > found["chance"]["hue"]


def test_f1_is_of_labels_with_two_classes(whole):
    found = results(whole)["f1"]
    for feature in ("z", "pooled"):
        for block in (found, found["untrained"]):
            assert list(block[feature]["labels"]) == ["bright"]
            assert block[feature]["mean"] == block[feature]["labels"]["bright"]
    assert found["pooled"]["mean"] > 0.5


def test_the_page_shows_the_sections(plain, whole):
    page = report.report(whole).read_text()
    assert "Which part of z knows what" in page and "Accuracy of each section alone" in page
    accuracy = results(whole)["sections"]["linear"][0][0]
    assert f"section 0, bright: {accuracy:.2f}" in page and "FactorVAE score" in page and "all of z" in page
    assert "Which part of z knows what" not in report.report(plain).read_text()


def test_what_was_measured_is_shown_not_measured_again(whole, capsys):
    paths = [whole / "probe" / "4" / "results.json", whole / "probe" / "untrained.json"]
    before = [path.stat().st_mtime_ns for path in paths]
    assert probe.main([f"--workdir={whole}", "--tasks=dci,f1"]) == 0
    assert [path.stat().st_mtime_ns for path in paths] == before
    printed = capsys.readouterr().out
    found = results(whole)
    assert "dimensions of z, trees" in printed and "encoding" not in printed
    assert (
        f"{found['sap']['z']:.3f}" in printed and f"{100 * found['sections']['linear'][0][0]:.1f}" in printed
    )


def test_only_what_is_missing_is_measured(whole, tmp_path, capsys):
    workdir, first = tmp_path / "run", results(whole)
    shutil.copytree(whole, workdir)
    path = workdir / "probe" / "4" / "results.json"
    path.write_text(json.dumps({name: block for name, block in first.items() if name != "mig"}))
    follow(
        workdir, {}, 1.0, wait=lambda seconds: pytest.fail("nothing to wait for"), tasks=("factor_vae", "mig")
    )
    printed = capsys.readouterr().out
    assert results(workdir) == first and "  mig:" in printed and "factor_vae:" not in printed


def test_other_settings_make_other_blocks_and_leave_the_rest(whole, tmp_path):
    workdir, first = tmp_path / "run", results(whole)
    shutil.copytree(whole, workdir)
    assert probe.main([f"--workdir={workdir}", "--tasks=mig", "--config.disentanglement.images=24"]) == 0
    found = results(workdir)
    assert found["mig"]["z"] != first["mig"]["z"] and found["mig"]["untrained"] != first["mig"]["untrained"]
    assert found["mig"]["made_from"]["settings"] != found["dci"]["made_from"]["settings"]
    assert {**found, "mig": first["mig"]} == first  # what was not asked for says itself what it is of


def test_blocks_of_other_weights_are_not_kept():
    found = {
        "step": 4,
        "mig": {"z": 0.1, "made_from": {"encoder": "a"}},
        "dci": {"made_from": {"encoder": "b"}},
    }
    assert list(kept(found, {"encoder": "a"})) == ["mig"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks=dcii"], "--tasks: expected some of linear, knn, dci, mig, sap"),
        (["--tasks=dci", "--config.disentanglement.trees=oak"], "disentanglement.trees"),
        (["--tasks=mig", "--config.disentanglement.images=-1"], "config.disentanglement.images"),
        (["--tasks=mig", "--config.disentanglement.image=1"], "disentanglement"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(plain, capsys, arguments, words):
    assert probe.main([f"--workdir={plain}", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1


def test_scores_of_several_labels_need_several(plain):
    job = prepare(open_run(plain))
    one = dataclasses.replace(job, dataset=dataclasses.replace(job.dataset, labels={"hue": 3}))
    with pytest.raises(
        ValueError, match=r"--tasks: dci, sap .*needs 2 or more; data set 'hues' has hue only"
    ):
        with_tasks(one, ("linear", "dci", "sections", "sap"))
    with pytest.raises(ValueError, match=r"--tasks: f1 is for .* 2 classes; data set 'hues' has"):
        with_tasks(one, ("f1",))
    assert with_tasks(one, ("sections",)).tasks == ("sections",)
