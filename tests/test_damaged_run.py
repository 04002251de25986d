"""A run whose checkpoint is damaged, or whose disk is full, says so and goes on with what is good."""

import json
import subprocess

import jax
import pytest

from experiments import probe, train
from experiments.runs import open_run
from soda_jax.training import checkpoints
from soda_jax.training.checkpoints import CheckpointError
from tests import small_job, small_run
from tests.small_config import SAVE, STEPS
from tests.test_integrity import flip


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled step of the small job, for every run of this file."""
    job = small_job.job(tmp_path_factory.mktemp("program"))
    found = train.compile_step(job, print)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_step", lambda job, say: found)
        yield
    jax.clear_caches()


def test_training_goes_on_from_the_step_before_the_damaged_one(program, tmp_path):
    small_job.run(tmp_path)
    whole = small_job.records(tmp_path)
    assert checkpoints.steps(tmp_path / "checkpoints") == [SAVE, 2 * SAVE, STEPS]
    damaged = next((tmp_path / "checkpoints" / str(STEPS)).glob("state/ocdbt.process_0/d/*"))
    flip(damaged)
    said = []
    assert small_job.run(tmp_path, say=said.append).kind == "finished"
    assert "damaged" in said[0] and str(damaged) in said[0]
    assert any(f"going on from step {2 * SAVE}" in text for text in said)
    assert checkpoints.steps(tmp_path / "checkpoints") == [SAVE, 2 * SAVE, STEPS]
    assert small_job.records(tmp_path) == whole
    assert len(list((tmp_path / "checkpoints").glob(f"{STEPS}.damaged-*"))) == 1


def test_the_probe_takes_the_step_before_and_refuses_the_damaged_one(tmp_path, capsys):
    run = small_run.write(tmp_path / "run")
    damaged = run / "checkpoints" / "4" / "state" / "_METADATA"
    flip(damaged)
    assert open_run(run).step == 2
    assert f"damaged or unfinished: {damaged}" in capsys.readouterr().out
    assert probe.main([f"--workdir={run}", "--step=4"]) == 1
    error = capsys.readouterr().err
    assert "damaged" in error and str(damaged) in error and len(error.strip().splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A workdir whose checkpoints lie on a disk with room for one of them; yields both."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    small_job.run(tmp_path / "trial", {"train.images": 8})
    size = sum(
        path.stat().st_size for path in (tmp_path / "trial" / "checkpoints").rglob("*") if path.is_file()
    )
    options = f"size={int(1.7 * size)}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield tmp_path
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_everywhere_and_the_run_goes_on(program, small_disk):
    said = []
    with pytest.raises(
        CheckpointError, match=r"training went on to step 14, but 2 checkpoint\(s\) could not"
    ):
        small_job.run(small_disk, say=said.append)
    assert checkpoints.steps(small_disk / "checkpoints") == [SAVE]
    assert checkpoints.newest_good(small_disk / "checkpoints", pytest.fail) == SAVE
    errors = [text for text in said if text.startswith("error:")]
    assert len(errors) == 2 and all("could not be written" in text for text in errors)
    lines = [json.loads(line) for line in (small_disk / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "error" in line] == [2 * SAVE, STEPS]
    assert max(line["step"] for line in lines if "loss" in line) == STEPS, "it went on"
