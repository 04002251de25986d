"""The training main: what it prints, writes and refuses."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from experiments import runs, train
from experiments.job import check_same, describe
from soda_jax.training import checkpoints, single_state
from soda_jax.training.signals import StopRequest
from tests import prepared_data, small_job
from tests.small_config import BATCH

ROOT = Path(train.__file__).parent.parent
HOOKS = {"samples.every_images": 3 * BATCH, "monitor.every_images": 3 * BATCH, "train.images": 4 * BATCH}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """A run of 4 steps with pictures and monitor, what it said, and how it ended."""
    workdir, said = tmp_path_factory.mktemp("pictured"), []
    end = small_job.run(workdir, HOOKS, say=said.append)
    return workdir, "\n".join(said), end


def test_before_training_it_says_what_is_about_to_happen(pictured):
    _, said, end = pictured
    assert (end.kind, end.step) == ("finished", 4)
    for text in (
        "data.image_size: 64 -> 8",
        "encoder/stage4",
        "ema_params",
        "devices: 1 x cpu (cpu), mesh: data 1, fsdp 1, processes: 1",
        "GFLOP an image",
        "23 training examples",
        "steps: 4 of 8 images",
        "compiled in",
        "memory: state",
        "finished: 32 images, checkpoint in",
    ):
        assert text in said, text


def test_pictures_of_test_images_and_the_latent_in_the_log(pictured):
    workdir, _, _ = pictured
    names = sorted(path.name for path in (workdir / "samples").iterdir())
    assert names == ["step_00000003.png", "step_00000004.png"]
    with Image.open(workdir / "samples" / names[0]) as grid:
        assert grid.width > 3 * 100
    records = small_job.records(workdir)
    assert [record["step"] for record in records] == [3, 4]
    for record in records:
        assert record["monitor/step"] == record["step"]
        assert {"monitor/use", "monitor/effective_rank", "monitor/gain/02"} <= record.keys()


def test_a_line_of_metrics_has_the_promised_names(pictured):
    line = json.loads((pictured[0] / "metrics.jsonl").read_text().splitlines()[0])
    assert {"step", "images", "loss", "images_per_second", "grad_norm", "data_wait", "seconds"} <= line.keys()
    assert line["images"] == 3 * BATCH and line["images_per_second"] > 0


def test_the_folder_can_be_opened(pictured):
    run = runs.open_run(pictured[0])
    assert run.step == 4 and run.data_info["sizes"] == {"train": 23, "test": 11}
    assert run.config.samples.every_images == 3 * BATCH
    initial, trained = run.untrained_variables(), run.ema_variables()
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (initial, trained)), strict=True)]
    assert np.mean(moved) > 0.9


def test_run_again_it_has_nothing_to_do(pictured):
    said = []
    end = small_job.run(pictured[0], HOOKS, say=said.append)
    assert (end.kind, end.step) == ("finished", 4) and "nothing to do: trained for 32 images" in said[-1]


def test_another_config_is_refused_with_what_differs(pictured):
    workdir, _, _ = pictured
    with pytest.raises(
        ValueError, match=r"step 4 .* optimizer.clip: 1.0 -> 2.0. .*allow_config_change"
    ) as error:
        small_job.run(workdir, HOOKS | {"optimizer.clip": 2.0, "data.threads": 2})
    assert "data.threads" not in str(error.value)
    saved = checkpoints.metadata(workdir / "checkpoints", 4)
    assert saved["versions"]["jax"] == jax.__version__
    check_same(small_job.job(workdir, {"optimizer.clip": 2.0, "train.allow_config_change": True}), 4, saved)
    with pytest.raises(ValueError, match=r"files of data set single1: other -> "):
        check_same(small_job.job(workdir, HOOKS), 4, saved | {"data": "other"})


def test_another_config_goes_on_when_told_to(pictured, tmp_path):
    shutil.copytree(pictured[0], tmp_path / "run")
    changes = {"optimizer.clip": 2.0, "train.allow_config_change": True, "train.images": 5 * BATCH}
    end = small_job.run(tmp_path / "run", HOOKS | changes)
    assert (end.kind, end.step) == ("finished", 5)
    saved = checkpoints.metadata(tmp_path / "run" / "checkpoints", 5)
    assert saved["config"]["optimizer"]["clip"] == 2.0


def test_a_config_for_more_devices_is_folded_and_says_so(tmp_path):
    job = small_job.job(tmp_path, {"mesh.data": 16, "mesh.fsdp": 2, "train.batch": 32})
    assert (job.mesh.devices.size, job.accumulation) == (8, 4)
    text = "folded: mesh.data=16 x mesh.fsdp=2 is 32 devices, 8 present: 4 microbatches a step keep the batch"
    assert text in describe(job, 0) and "going on" not in describe(job, 0)
    with pytest.raises(ValueError, match=r"mesh.fold=True"):
        small_job.job(tmp_path, {"mesh.data": 16, "mesh.fold": False})


def test_a_loss_that_is_not_finite_leaves_its_batch_and_the_state_before(tmp_path):
    said = []
    changes = {"optimizer.learning_rate": 1e30, "optimizer.warmup_images": 0, "train.images": 4 * BATCH}
    end = small_job.run(tmp_path, changes, say=said.append)
    assert end.kind == "diverged" and checkpoints.steps(tmp_path / "checkpoints") == []
    folder = tmp_path / "failure" / f"step_{end.step:08d}"
    assert str(folder) in said[-1] and "optimizer.learning_rate" in said[-1]
    with np.load(folder / "batch_0.npz") as batch:
        assert batch["source"].shape == (BATCH, 8, 8, 1) and batch["source"].dtype == np.uint8
    job = small_job.job(tmp_path, changes)
    state = single_state.load_once(folder / "state", job.abstract)
    assert int(state.step) == int(state.failed_step) == end.step - 1


def call_main(monkeypatch, workdir, *arguments):
    """The main in this process; returns what it exits with."""
    config = f"--config={ROOT / 'tests' / 'small_config.py'}"
    argv = ["train", config, f"--workdir={workdir}", *arguments]
    monkeypatch.setattr(sys, "argv", argv)  # where config_flags looks for the keys that are overridden
    flags.FLAGS(argv)
    with pytest.raises(SystemExit) as end:
        train.main(["train"])
    return end.value.code


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.name", "nowhere", "data set 'nowhere'"),
        ("data.image_size", "64", "config.data.image_size"),
        ("model.latent_dim", "7", "model.latent_dim=7"),
        ("checkpoint.keep", "0", "checkpoint.keep must be 1 or more"),
        ("samples.steps", "2000", "samples.steps: expected at most diffusion.steps = 1000"),
        ("samples.every_images", "-8", "samples.every_images must be 0 (never) or more"),
        ("samples.guide_sections", "(0,9)", "samples.guide_sections must lie in 0..2"),
        ("monitor.batch", "1", "monitor.batch must be 2 or more"),
        ("ema.decay", "1.5", "ema.decay must be 0 or more and below 1"),
    ],
)
def test_errors_are_one_line_and_status_1(key, value, words, monkeypatch, tmp_path):
    prepared_data.single(1)
    said = call_main(monkeypatch, tmp_path, f"--config.{key}={value}")
    assert said.startswith("error: ") and words in said and "\n" not in said


def test_a_loss_that_is_not_finite_ends_with_status_1(monkeypatch, tmp_path, capsys):
    prepared_data.single(1)
    keys = ("optimizer.learning_rate=1e30", "optimizer.warmup_images=0", "train.images=32")
    assert call_main(monkeypatch, tmp_path, *(f"--config.{key}" for key in keys)) == 1
    assert "was not finite in step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "word"), [("--config.data.nam=x", "nam"), ("--config.modle.channels=8", "modle")]
)
def test_a_mistyped_key_is_one_line_too(argument, word, monkeypatch):
    argv = ["train", f"--config={ROOT / 'tests' / 'small_config.py'}", "--workdir=w", argument]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        train.parse_flags(argv)
    said = end.value.code
    assert said.startswith("error: --config: ") and word in said and "default.py" in said and "\n" not in said


def test_a_workdir_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = call_main(monkeypatch, tmp_path / "file" / "run")
    assert said.startswith("error: --workdir=") and "choose another folder" in said


def test_a_stop_while_compiling_ends_before_the_first_step(tmp_path):
    stop, said = StopRequest(), []
    stop.requested = "SIGTERM"
    end = small_job.run(tmp_path, stop=stop, say=said.append)
    assert (end.kind, end.step) == ("stopped", 0) and "nothing new to save" in said[-1]
    assert checkpoints.steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_ends_with_status_0(name, tmp_path):
    prepared_data.single(1)
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        "--config=tests/small_config.py",
        f"--workdir={tmp_path}",
    ]
    command += [f"--config.data.dir={prepared_data.data_dir()}", f"--config.train.images={1000 * BATCH}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    said = []
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        for line in process.stdout:
            said.append(line)
            if line.startswith("step 3 "):
                process.send_signal(getattr(signal, name))
    rest = "".join(said)
    assert process.returncode == 0, rest
    assert f"stopped by {name} after step" in rest and "Traceback" not in rest
    (step,) = checkpoints.steps(tmp_path / "checkpoints")[-1:]
    assert f"after step {step}: saved" in rest
    assert small_job.records(tmp_path)[-1]["step"] == step // 3 * 3
