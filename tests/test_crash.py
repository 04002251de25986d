"""Five SIGTERM and five SIGKILL of live trainings lose nothing; and the judge of that test can say no."""

import json
import shutil

import pytest

from experiments.benchmarks import crash_test
from experiments.benchmarks.crash_test import SAVE, Life, crash, differences


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder of the lives, and what was wrong."""
    folder = tmp_path_factory.mktemp("crash")
    with pytest.MonkeyPatch.context() as patch:  # many steps of a small program: optimising it a little pays
        patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1")
        return folder, crash(folder, terms=5, kills=5, seed=1)


def test_ten_signals_lose_nothing(played):
    folder, complaints = played
    assert complaints == []
    assert crash_test.newest(folder / "alone") == crash_test.newest(folder / "round1") == crash_test.STEPS


def test_a_log_and_a_state_that_differ_are_told(played, tmp_path):
    folder, _ = played
    other = shutil.copytree(folder / "alone", tmp_path / "other")
    lines = (other / "metrics.jsonl").read_text().splitlines()
    changed = json.loads(lines[7])
    changed["loss"] += 1e-7
    (other / "metrics.jsonl").write_text("\n".join([*lines[:7], json.dumps(changed), *lines[8:]]) + "\n")
    assert differences(folder / "alone", other) == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("how", "reached", "saved", "status", "complaint"),
    [
        ("SIGTERM", 33, 33, 0, ""),
        ("SIGTERM", 33, 32, 0, "1 steps lost on SIGTERM"),
        ("SIGTERM", 33, 33, 1, "status 1 on SIGTERM"),
        ("SIGKILL", 3 * SAVE + 5, 3 * SAVE, -9, ""),
        ("SIGKILL", 3 * SAVE + 5, 2 * SAVE, -9, ""),
        ("SIGKILL", 3 * SAVE + 5, SAVE, -9, f"{2 * SAVE + 5} steps lost on SIGKILL"),
        ("SIGKILL", 3 * SAVE, SAVE, -9, ""),  # the second is being written, the third has to wait for it
        ("SIGKILL", 3 * SAVE + 1, SAVE, -9, f"{2 * SAVE + 1} steps lost on SIGKILL"),
        ("the end", 40, 40, 1, "status 1"),
    ],
)
def test_what_counts_as_lost(how, reached, saved, status, complaint):
    life = Life(how=how, start=0, reached=reached, saved=saved, status=status, moment="")
    assert life.complaint == complaint
