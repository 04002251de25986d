"""probe --grid on a small run: the promised form, the protocol, what is kept, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from experiments import probe, report
from experiments.probe_grid import asked, taps
from experiments.probing import prepare
from experiments.runs import open_run
from soda_jax.evaluation.linear_probe import LinearProbe
from soda_jax.evaluation.linear_probe import probe as linear_probe
from soda_jax.evaluation.stacked_probe import answer_all, choose_heads
from tests import small_run

GRID = ("--grid", "--levels=1,500", "--layers=out_1,out_4,middle")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of DDAE as training leaves it."""
    return small_run.write_ddae(tmp_path_factory.mktemp("grid") / "run")


@pytest.fixture(scope="module")
def probed(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed") / "run"
    shutil.copytree(workdir, folder)
    assert probe.main([f"--workdir={folder}", *GRID]) == 0
    return folder


def results(workdir) -> dict:
    return json.loads((workdir / "probe_grid" / "4" / "results.json").read_text())


def test_the_results_have_the_promised_form(probed):
    found = results(probed)
    pairs = [(cell["layer"], cell["noise"]) for cell in found["cells"]]
    assert pairs == [(layer, level) for level in (1, 500) for layer in ("out_1", "out_4", "middle")]
    assert all(0 <= cell["linear"] <= 1 for cell in found["cells"])
    assert found["chosen"].keys() >= {"layer", "noise", "validation", "test"}
    assert found["select"] == "holdout" and found["draws"] == 1


def test_the_best_pair_on_the_held_out_part_is_chosen_and_answers_test(probed):
    found = results(probed)
    best = max(found["cells"], key=lambda cell: cell["linear"])
    chosen = found["chosen"]
    assert (chosen["layer"], chosen["noise"]) == (best["layer"], best["noise"])
    assert chosen["validation"] == pytest.approx(best["linear"], abs=1e-6)
    for name, row in chosen["labels"].items():
        assert row["validation"] == pytest.approx(best["labels"][name], abs=1e-6)
        low, high = row["test_ci95"]
        assert low <= row["test"] <= high


def test_each_cell_is_what_the_probe_of_that_layer_and_level_finds(probed, tmp_path):
    """The same numbers by another way: one layer, one level, the plain probe."""
    folder = tmp_path / "run"
    shutil.copytree(probed, folder)
    place = ("--config.ddae.tap=out_4", "--config.ddae.level=500")
    assert probe.main([f"--workdir={folder}", *place]) == 0
    plain = json.loads((folder / "probe" / "4" / "results.json").read_text())["labels"]
    cell = next(c for c in results(folder)["cells"] if (c["layer"], c["noise"]) == ("out_4", 500))
    for name, value in cell["labels"].items():
        assert plain[name]["z"]["holdout"] == pytest.approx(value, abs=1e-6)
    other = json.loads((folder / "probe" / "4" / "results.json").read_text())["made_from"]
    assert probe.main([f"--workdir={folder}", "--config.ddae.level=1"]) == 0
    assert json.loads((folder / "probe" / "4" / "results.json").read_text())["made_from"] != other


def test_selection_on_test_is_called_that(workdir, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    assert probe.main([f"--workdir={folder}", *GRID, "--select=test"]) == 0
    found = results(folder)
    best = max(found["cells"], key=lambda cell: cell["linear"])
    assert found["chosen"]["test"] == pytest.approx(best["linear"], abs=1e-6)
    assert "no estimate" in found["selected_on"] and "no estimate" in capsys.readouterr().out


def test_levels_that_are_there_are_not_probed_again(probed, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(probed, folder)
    before = (folder / "probe_grid" / "4" / "results.json").read_bytes()
    (folder / "probe_grid" / "4" / "level_500_holdout.json").unlink()
    assert probe.main([f"--workdir={folder}", *GRID]) == 0
    said = capsys.readouterr().out
    assert "level 1 is probed already" in said and "level 500: 3 layers" in said
    assert (folder / "probe_grid" / "4" / "results.json").read_bytes() == before
    assert probe.main([f"--workdir={folder}", *GRID, "--config.ddae.draws=0"]) == 0
    assert "is probed already" not in capsys.readouterr().out
    assert results(folder)["draws"] == 0


def test_the_page_shows_a_heat_map(probed):
    assert report.main([f"--workdir={probed}"]) == 0
    page = (probed / "report.html").read_text()
    assert "Where in the net the features are best" in page
    assert "Linear probe by layer and noise level, %" in page and "out_4, 500" in page


def test_usual_layers_are_the_way_up_and_the_middle_in_order(workdir):
    job = prepare(open_run(workdir))
    assert taps(job, job.run.method)[-5:] == ["middle/branch", "out_1", "out_2", "out_3", "out_4"]
    assert asked(job, [], [], "holdout").layers == ("middle", "out_1", "out_2", "out_3", "out_4")
    assert asked(job, [], [], "holdout").levels == (1, 11, 21)


def test_of_a_dit_all_blocks_are_usual_and_are_probed(tmp_path):
    sizes = {"denoiser": "dit", "dit_size": "custom", "dit_width": 8, "dit_depth": 11, "dit_heads": 2}
    run = small_run.write_ddae(tmp_path / "run", {**sizes, "patch": 4})
    job = prepare(open_run(run))
    assert asked(job, [], [], "holdout").layers == tuple(f"block_{k}" for k in range(12))
    assert probe.main([f"--workdir={run}", "--grid", "--levels=1", "--layers=block_0,block_11"]) == 0
    assert [cell["layer"] for cell in results(run)["cells"]] == ["block_0", "block_11"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--levels=0", "1 to diffusion.steps = 1000"),
        ("--layers=out_9", "out_9: the net has in_1"),
        ("--select=train", "--select must be holdout or test"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_read(workdir, flag, words, capsys):
    assert probe.main([f"--workdir={workdir}", "--grid", flag]) == 1
    assert words in capsys.readouterr().err


def test_other_methods_have_no_grid(tmp_path, capsys):
    run = small_run.write(tmp_path / "soda", steps=(4,))
    assert probe.main([f"--workdir={run}", "--grid"]) == 1
    assert "--grid is for runs of config.method='ddae'" in capsys.readouterr().err


def test_a_stack_of_codes_is_probed_as_each_of_them_alone():
    """Held-out accuracies, choices and answers are those of `linear_probe.probe`."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (2, 120)).astype(np.int32)
    x = rng.normal(size=(3, 120, 4)).astype(np.float32)
    x[1, :, 0] += 4 * y[0]
    x[2, :, 1] -= 4 * y[1]
    queries = rng.normal(size=(3, 20, 4)).astype(np.float32)
    settings = LinearProbe(learning_rates=(0.01, 0.1), weight_decays=(0.0, 1e-3), images=4000, batch=32)
    choice = choose_heads(x, y, (3, 3), np.arange(120), settings)
    answers = answer_all(x, y, (3, 3), choice, queries, settings)
    assert choice.holdout[1, 0] > 0.8 and choice.holdout[2, 1] > 0.8
    for i in range(3):
        alone = linear_probe(x[i], y, (3, 3), np.arange(120), queries[i], settings)
        for label, one in enumerate(alone):
            assert choice.holdout[i, label] == pytest.approx(one.holdout)
            np.testing.assert_allclose(choice.rows[i, 0, label], [one.learning_rate, one.weight_decay])
            np.testing.assert_array_equal(answers[i, label], one.predicted)
