"""A run that was stopped or killed, anywhere, ends as the unbroken one: every bit of its state and log."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import train
from soda_jax.training import checkpoints
from soda_jax.training.signals import StopRequest
from tests import prepared_data, small_job
from tests.small_config import BATCH, SAVE, STEPS


class SignalAt(small_job.StopAt):
    """Sends this process a real signal at a step, which the handlers of the base class note."""

    def __call__(self):
        if super().__call__() and not self.requested:
            os.kill(os.getpid(), signal.SIGTERM)
        return StopRequest.__call__(self)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Folder of a run without interruption. The program of its step serves all runs of this process."""
    workdir = tmp_path_factory.mktemp("unbroken")
    program = train.compile_step(small_job.job(workdir), print)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_step", lambda job, say: program)
        assert small_job.run(workdir).kind == "finished"
        yield workdir


def states(workdir):
    """The states of all checkpoints, by step."""
    abstract = small_job.job(workdir).abstract
    folder = workdir / "checkpoints"
    return {step: checkpoints.load(folder, step, abstract) for step in checkpoints.steps(folder)}


def assert_same_end(workdir, unbroken):
    """Parameters, averages, moments, statistics and step at the end, and every line of the log."""
    a, b = (jax.tree.leaves_with_path(states(folder)[STEPS]) for folder in (workdir, unbroken))
    assert len(a) == len(b) > 300
    for (path, x), (_, y) in zip(a, b, strict=True):
        assert np.array_equal(x, y), path
    assert small_job.records(workdir) == small_job.records(unbroken)


@pytest.mark.parametrize("step", [2, 7], ids=["in the warm-up", "in the third epoch"])
def test_stopped_by_a_signal(step, unbroken, tmp_path):
    with SignalAt(step) as stop:
        end = small_job.run(tmp_path, stop=stop)
    assert (end.kind, end.step, stop.requested) == ("stopped", step, "SIGTERM")
    assert checkpoints.steps(tmp_path / "checkpoints")[-1] == step
    assert small_job.run(tmp_path).kind == "finished"
    assert_same_end(tmp_path, unbroken)


def test_ended_by_its_minutes(unbroken, tmp_path):
    said, short = [], {"train.minutes": 1e-9}
    end = small_job.run(tmp_path, short, say=said.append)
    assert (end.kind, end.step) == ("time is up", 1) and "config.train.minutes=1e-09 are over" in said[-1]
    assert any("ends after 1e-09 minutes, if not before (config.train.minutes)" in text for text in said[:-1])
    told = json.loads((tmp_path / "time_is_up.json").read_text())
    assert told == {"step": 1, "images": BATCH, "minutes": 1e-9}
    assert small_job.run(tmp_path, short).step == 2
    assert small_job.run(tmp_path).kind == "finished"
    assert_same_end(tmp_path, unbroken)


def kill_at(step, workdir):
    """Runs until a step in a process of its own, which then kills itself."""
    command = [sys.executable, "-m", "tests.killed_job", workdir, str(step), prepared_data.data_dir()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("step", "legal"),
    [(3, {None}), (12, {SAVE, 2 * SAVE})],  # the newest save may still have been under way
    ids=["before any checkpoint", "between checkpoints"],
)
def test_killed(step, legal, unbroken, tmp_path):
    kill_at(step, tmp_path)
    saved = max(checkpoints.steps(tmp_path / "checkpoints"), default=None)
    assert saved in legal
    said = []
    small_job.run(tmp_path, say=said.append)
    assert any(f"going on from step {saved}" in text for text in said) == bool(saved)
    assert_same_end(tmp_path, unbroken)


def test_killed_during_a_save(unbroken, tmp_path):
    kill_at(2 * SAVE, tmp_path)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left[0] == f"{2 * SAVE}.orbax-checkpoint-tmp" and left[1:] == [f"{SAVE}"], left
    assert small_job.run(tmp_path).kind == "finished"
    assert_same_end(tmp_path, unbroken)


def test_it_is_the_seed_that_makes_the_run(unbroken, tmp_path):
    small_job.run(tmp_path, {"seed": 1, "train.images": 3 * BATCH})
    assert small_job.records(tmp_path)[0]["loss"] != small_job.records(unbroken)[0]["loss"]
