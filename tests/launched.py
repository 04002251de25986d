"""Real processes for the tests: the training main with the small config, started by experiments.launch.local."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.launch.local import free_port
from tests import prepared_data

__all__ = ["free_port"]  # for processes that are started by hand

ROOT = Path(__file__).parent.parent
TRAIN = ("-m", "experiments.train", "--config=tests/small_config.py", "--config.mesh.data=-1")


def training(workdir: Path, *more: str) -> list[str]:
    """The command line of the small job after the interpreter's name."""
    prepared_data.single(1)
    return [*TRAIN, f"--workdir={workdir}", f"--config.data.dir={prepared_data.data_dir()}", *more]


def start(arguments: Sequence[str], processes: int, devices: int = 2, grace: int = 60) -> subprocess.Popen:
    """The launcher, with its output in a pipe."""
    own = [f"--processes={processes}", f"--devices={devices}", f"--grace={grace}"]
    return start_alone(["-m", "experiments.launch.local", *own, *arguments])


def start_alone(arguments: Sequence[str], **variables: str) -> subprocess.Popen:
    """One process, started by hand."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen, timeout: int = 400) -> tuple[int, str]:
    """Exit status and output; a process that does not end is killed with what it started, and fails the test."""
    try:
        output = process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        for pid in [*children(process), process.pid]:
            os.kill(pid, signal.SIGKILL)
        print(process.communicate()[0])  # and the process is reaped: the next test would be told of it
        raise
    return process.returncode, output


def run(arguments: Sequence[str], processes: int, devices: int = 2) -> str:
    """The output of a launch that must succeed."""
    status, output = finished(start(arguments, processes, devices))
    assert status == 0, output
    return output


def children(launcher: subprocess.Popen) -> list[int]:
    """Process ids of what the launcher started, in the order of their numbers."""
    text = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def wait_for(process: subprocess.Popen, sign: str) -> list[str]:
    """Reads the output up to the line that holds the sign."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sign in line:
            return lines
    raise AssertionError(f"it ended without saying {sign!r}:\n{''.join(lines)}")
