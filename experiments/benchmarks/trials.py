"""Many runs of the public mains for one table: each finds what is done, so that a table can be stopped and started."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments.quickstart import Stage, Stopped, clock, execute, run_all

SPENT = "cpu_seconds.json"  # of the training, compilation included, however often it was stopped


class Trial(Protocol):
    """One run, and what it leaves."""

    workdir: Path

    def phases(self) -> Iterable[Sequence[Stage]]:
        """The mains, in order; those of a later phase may depend on what the earlier ones have left."""

    def figures(self) -> Any:
        """What the table shows of it; None where it is not through."""


def run_trials(todo: Sequence[Trial], prog: str) -> int:
    """Runs what is not through. Returns the exit status: 0, or that of the main that failed."""
    started = time.monotonic()
    for number, trial in enumerate(todo, start=1):
        passed = clock(time.monotonic() - started)
        print(f"\n== {number}/{len(todo)} {trial.workdir.name} (after {passed}) ==", flush=True)
        try:
            if trial.figures() is None:
                for stages in trial.phases():
                    run_all(stages, watched(trial.workdir))
        except Stopped as stop:
            print(f"{prog}: {trial.workdir}: {stop}", file=sys.stderr)
            return stop.status
    return 0


def watched(workdir: Path, start: Callable[[Sequence[str]], int] = execute) -> Callable[[Sequence[str]], int]:
    """`start`, which also leaves the processor's seconds of a training in its workdir."""

    def started(command: Sequence[str]) -> int:
        before = of_children()
        try:
            return start(command)
        finally:
            if command[0] == "experiments.train" and workdir.is_dir():
                (workdir / SPENT).write_text(json.dumps(spent(workdir) + of_children() - before))

    return started


def of_children() -> float:
    """Seconds that processes which this one started, and which have ended, kept processors busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spent(workdir: Path) -> float:
    """What `watched` has left."""
    path = workdir / SPENT
    return json.loads(path.read_text()) if path.is_file() else 0.0


def cell(values: Sequence[float]) -> str:
    """Mean, and the largest distance from it."""
    found = np.asarray(values)
    mean, digits = found.mean(), 3 if found.max() <= 1 else 1
    more = f" ± {np.abs(found - mean).max():.{digits}f}" if len(found) > 1 else ""
    return f"{mean:.{digits}f}{more}"


def results_of(folder: Path) -> dict[str, Any] | None:
    """What a main has left in this folder; None where it has not."""
    path = folder / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def seeds(text: str) -> list[int]:
    """Of an argument: 0,1"""
    return [int(seed) for seed in text.split(",")]


def some_of(known: Iterable[str]):
    """Type of an argument that names some of these: a,b"""

    def chosen(text: str) -> list[str]:
        wrong = [name for name in text.split(",") if name not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: expected some of {', '.join(known)}")
        return text.split(",")

    return chosen
