"""Stops and kills live trainings at random moments, saves included, and looks at what is lost:

    python -m experiments.benchmarks.crash_test [--terms=20] [--kills=20] [--seed=0] [--workdir=runs/crash_test]

Each life is the real `experiments.train` on a small data set made here. It gets SIGTERM or SIGKILL at a random
moment, from before the first step to the end, and the same command goes on. Exit status 1 unless, every time:

    the run that follows finds a whole checkpoint to go on from (unreadable: 0);
    SIGTERM ends with status 0 and loses no step;
    SIGKILL costs no checkpoint but the one that was being written: the newest whole one is the last that was begun,
    or the one before;
    at the end parameters, averages, moments, statistics and the log are, bit for bit, those of a run that was
    left alone.
"""

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from soda_jax.training import checkpoints
from soda_jax.training.ledger import TIMINGS
from soda_jax.training.metrics import read_metrics

BATCH, STEPS, SAVE = 8, 120, 20
IMAGES, SIDE = 40, 16
STEP = re.compile(rb"step (\d+) ")  # how lines of the log begin
CONFIG = {
    "data.name": "crash_test",
    "data.pair": "augment",
    "data.image_size": SIDE,
    "data.source_size": SIDE,
    "data.threads": 1,
    "model.encoder": "wrn_10_1",  # few layers: each life traces them
    "model.stem": "strided",
    "model.latent_dim": 6,
    "model.channels": 4,
    "model.multipliers": "(1,)",
    "model.attention": "(False,)",
    "model.groups": 2,
    "model.patch": 1,
    "model.rays": "none",
    "train.batch": BATCH,
    "train.images": BATCH * STEPS,
    "train.log_every_images": BATCH,
    "train.accumulation": 2,
    "checkpoint.every_images": BATCH * SAVE,
    "samples.every_images": BATCH * 2 * SAVE,
    "samples.steps": 2,
    "samples.count": 2,
    "monitor.every_images": BATCH * SAVE // 2,
    "monitor.batch": 8,
}


@dataclass(frozen=True, kw_only=True)
class Life:
    """One run of the training main, and how it ended."""

    how: str  # SIGTERM | SIGKILL | the end
    start: int  # step that it began from
    reached: int  # last step that it said, or its start
    saved: int  # step of the newest whole checkpoint after it
    status: int
    moment: str  # of the signal, in words

    @property
    def begun(self) -> int:
        """The last checkpoint that was begun for sure: one is begun after its step is said, and only when the one
        before is whole."""
        return (self.reached - 1) // SAVE * SAVE

    @property
    def complaint(self) -> str:
        """What is wrong with it; "" if nothing is."""
        if self.how == "SIGTERM" and self.status:
            return f"status {self.status} on SIGTERM"
        if self.how == "SIGTERM" and self.reached > max(self.saved, self.start):
            return f"{self.reached - self.saved} steps lost on SIGTERM"
        if self.how == "SIGKILL" and self.saved < self.begun - SAVE:
            return f"{self.reached - self.saved} steps lost on SIGKILL"
        return f"status {self.status}" if self.how == "the end" and self.status else ""


def command(folder: Path, workdir: Path) -> list[str]:
    """Of one life."""
    settings = {**CONFIG, "data.dir": folder / "data", "compilation_cache": folder / "programs"}
    return [
        *(sys.executable, "-m", "experiments.train", "--config=experiments/configs/quickstart.py"),
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in settings.items()),
    ]


def make_data(folder: Path) -> None:
    """A folder of noise, prepared as a data set."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / "images" / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    where = [f"--source={folder / 'images'}", "--name=crash_test", f"--data_dir={folder / 'data'}"]
    subprocess.run([sys.executable, "-m", "data.prepare", "folder", *where], check=True)


@dataclass(frozen=True)
class Moment:
    """When to send a signal: so many seconds after a line of the log that begins with some words."""

    number: signal.Signals
    words: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s after {self.words.strip()!r}"


def live(folder: Path, workdir: Path, moment: Moment | None) -> Life:
    """Runs until the end, or until a signal ends it."""
    start, output, sent = newest(workdir), [], False
    with subprocess.Popen(command(folder, workdir), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        for line in run.stdout:
            output.append(line)
            if moment and not sent and line.startswith(moment.words.encode()):
                time.sleep(moment.seconds)
                run.send_signal(moment.number)
                sent = True
        status = run.wait()
    if status not in (0, -signal.SIGKILL, -signal.SIGTERM):
        print(b"".join(output[-20:]).decode(), flush=True)
    stopped = status != 0 or b"stopped by" in output[-1]
    said = [int(found[1]) for found in map(STEP.match, output) if found]
    return Life(
        how=moment.number.name if moment and stopped else "the end",
        start=start,
        reached=max(
            said, default=start
        ),  # not from metrics.jsonl, which may still hold lines of the life before
        saved=newest(workdir),
        status=status,
        moment=str(moment or ""),
    )


def draw(rng: random.Random, number: signal.Signals, start: int) -> Moment:
    """One in four while it starts and compiles, the others up to two checkpoints on."""
    if rng.random() < 0.25:
        return Moment(number, "compiling", rng.uniform(0, 5))
    step = min(start + rng.randint(1, 2 * SAVE), STEPS - 2)
    return Moment(number, f"step {step} ", rng.uniform(0, 0.3))


def newest(workdir: Path) -> int:
    """The newest step whose files are all as they were written, 0 where there is none."""
    return checkpoints.newest_good(workdir / "checkpoints", lambda text: None) or 0


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs do not share bit for bit."""
    a, b = (contents(workdir) for workdir in (one, other))
    return [name for name in sorted(a.keys() | b.keys()) if not np.array_equal(a.get(name), b.get(name))]


def contents(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the last state, and the log, by name."""
    state = checkpoints.load_as_saved(workdir / "checkpoints", STEPS)
    lines = [
        {name: value for name, value in record.items() if name not in TIMINGS}
        for record in read_metrics(workdir / "metrics.jsonl")
    ]
    return {**state, "metrics.jsonl": np.asarray(json.dumps(lines))}


def crash(folder: Path, terms: int, kills: int, seed: int) -> list[str]:
    """Plays all lives; returns what was wrong."""
    complaints, rng = [], random.Random(seed)
    make_data(folder)
    alone = folder / "alone"
    unbroken = live(folder, alone, None)
    if unbroken.complaint:
        return [f"the run that was left alone ended with {unbroken.complaint}"]
    print(f"left alone: {unbroken.saved} steps; {terms + kills} signals to go", flush=True)
    todo = [signal.SIGTERM] * terms + [signal.SIGKILL] * kills
    rng.shuffle(todo)
    rounds = 0
    while todo:
        rounds += 1
        workdir = folder / f"round{rounds}"
        while newest(workdir) < STEPS:
            moment = draw(rng, todo.pop(), newest(workdir)) if todo else None
            life = live(folder, workdir, moment)
            print(row(life, len(todo)), flush=True)
            complaints += [life.complaint] if life.complaint else []
            if life.status not in (0, -signal.SIGKILL, -signal.SIGTERM):
                return [*complaints, "a run could not go on"]
        complaints += [f"round {rounds}: {name} differs" for name in differences(alone, workdir)]
    return complaints


def row(life: Life, left: int) -> str:
    """A life in a line."""
    lost = max(life.reached - life.saved, 0)
    return (
        f"{life.how:8} from step {life.start:3}  reached {life.reached:3}  saved {life.saved:3}  lost {lost:3}  "
        f"{left:3} signals left  {life.moment}  {life.complaint}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.crash_test",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--terms", type=int, default=20, help="how often SIGTERM (default: 20)")
    parser.add_argument("--kills", type=int, default=20, help="how often SIGKILL (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument(
        "--workdir", default="runs/crash_test", help="a new folder (default: runs/crash_test)"
    )
    arguments = parser.parse_args(argv)
    folder = Path(arguments.workdir).absolute()
    if folder.exists():
        print(f"--workdir={folder} is there already: name a new folder, or delete it", file=sys.stderr)
        return 1
    complaints = crash(folder, arguments.terms, arguments.kills, arguments.seed)
    for complaint in complaints:
        print(f"WRONG: {complaint}")
    print("wrong: " + str(len(complaints)) if complaints else "all as promised")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
