"""From nothing to a page that shows what SODA learned: `python -m experiments.quickstart [--minutes=4]`.

Runs the public mains one after the other, each as its own process, and shows each one's command line: take
any of them and go on from there. What is done already is found and said: the same command goes on.
"""

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from experiments.configs import quickstart as recipe
from soda_jax.training.integrity import is_whole
from soda_jax.training.signals import TIME_IS_UP

CONFIG = "experiments/configs/quickstart.py"
# Memory in large pages, where Linux gives them to who asks: a step gets its arrays anew, page by page.
LARGE_PAGES = "glibc.malloc.hugetlb=1"
PATIENCE = 1.25  # times --minutes, then a slower machine stops training and goes on with what there is


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One main: `command` follows `python -m`; `found` says in words what is done already, else ""."""

    name: str
    command: tuple[str, ...]
    found: Callable[[], str] = str  # str() is "": the main itself knows what to do again
    promises: bool = False  # an end with status 0 must leave `found` something to say


class Stopped(Exception):
    """A stage did not come to its end; `status` is the exit status that says so."""

    def __init__(self, words: str, status: int):
        super().__init__(words)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or that of the stage that failed."""
    arguments = _parser().parse_args(argv)
    started, workdir = time.monotonic(), Path(arguments.workdir)
    try:
        run_all(stages(workdir, arguments.minutes, arguments.data_dir))
    except Stopped as stop:
        print(f"experiments.quickstart: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:  # between two stages: a running one gets the signal, and ends as Stopped
        return 128 + signal.SIGINT
    page = (workdir / "report.html").resolve()
    print(f"\nDone in {clock(time.monotonic() - started)}. Open {page} in a browser.")
    return 0


def stages(workdir: Path, minutes: float, data_dir: str = "") -> list[Stage]:
    """What is to be done, in order; `minutes` of training on the machine that the recipe was tuned on."""
    images, batch = round(minutes * recipe.IMAGES_PER_MINUTE), recipe.get_config().train.batch
    limit = PATIENCE * minutes
    where = f"--workdir={workdir}"
    last = math.ceil(images / batch)

    def done() -> str:
        return trained(workdir, last) or timed_out(workdir, limit, images)

    prepare = ("data.prepare", "views3d", *([f"--data_dir={data_dir}"] if data_dir else []))
    train = ("experiments.train", f"--config={CONFIG}", where, f"--config.train.images={images}")
    train += (f"--config.train.minutes={limit:g}",)
    train += (f"--config.data.dir={data_dir}",) if data_dir else ()
    return [
        Stage(name="prepare data", command=prepare),
        Stage(name="train", command=train, found=done, promises=True),
        Stage(name="probe", command=("experiments.probe", where)),
        Stage(name="sample", command=("experiments.sample", where)),
        Stage(name="report", command=("experiments.report", where)),
    ]


def run_all(todo: Sequence[Stage], start: Callable[[Sequence[str]], int] | None = None) -> None:
    """Runs the stages in order. Raises Stopped at the first that does not come to its end."""
    for number, stage in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] {stage.name}\n$ {command_line(stage)}", flush=True)
        done = stage.found()
        if done:
            print(f"found done: {done}", flush=True)
            continue
        check(stage, f"[{number}/{len(todo)}] {stage.name}", (start or execute)(stage.command))


def command_line(stage: Stage) -> str:
    """As it can be typed."""
    return shlex.join(["python", "-m", *stage.command])


def check(stage: Stage, title: str, status: int) -> None:
    """Raises Stopped unless the stage has done what it is for."""
    if status:
        raise Stopped(
            f"{title} failed with exit status {status}, for the reason above; "
            "when that is mended, the same command goes on from here",
            status,
        )
    if stage.promises and not stage.found():
        raise Stopped(f"{title} ended before it was done; the same command goes on from there", 1)


def trained(workdir: Path, last: int) -> str:
    """True in words when a checkpoint of step `last` or a later one is there."""
    step = newest(workdir)
    return f"the checkpoint of step {step} in {workdir}/checkpoints" if step >= last else ""


def timed_out(workdir: Path, minutes: float, images: int) -> str:
    """True in words when the newest checkpoint is that of a training that so many minutes have ended."""
    path = workdir / TIME_IS_UP
    if not path.is_file():
        return ""
    record = json.loads(path.read_text())
    if record["minutes"] < minutes or record["step"] != newest(workdir):
        return ""
    return (
        f"the checkpoint of step {record['step']} in {workdir}/checkpoints: {record['images']:,} of {images:,} images "
        f"in {record['minutes']:g} minutes, all the time there is for them (--minutes gives more)"
    )


def newest(workdir: Path) -> int:
    """Step of the newest checkpoint, -1 where there is none."""
    folders = (path for path in workdir.glob("checkpoints/*") if path.name.isdigit())
    return max((int(path.name) for path in folders if is_whole(epath.Path(path))), default=-1)


def execute(command: Sequence[str]) -> int:
    """Runs `python -m command` with this process's input and output; returns its exit status.

    The process is in a group of its own and gets SIGINT and SIGTERM from here, once each, so that it can save
    and end; Stopped is raised when it has.
    """
    got: list[int] = []
    environment = {"GLIBC_TUNABLES": LARGE_PAGES, **os.environ}
    with subprocess.Popen([sys.executable, "-m", *command], process_group=0, env=environment) as process:

        def forward(number, frame):
            got.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if got:
        raise Stopped("stopped; the same command goes on from there", 128 + got[0])
    return status if status >= 0 else 128 - status


def clock(seconds: float) -> str:
    """7:03"""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} min"


def minutes(text: str) -> float:
    """Of an argument."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.quickstart", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--minutes", type=minutes, default=4.0, help="of training, about, on 2 cores (default: 4)"
    )
    parser.add_argument(
        "--workdir", default="runs/quickstart", metavar="DIR", help="default: runs/quickstart"
    )
    parser.add_argument(
        "--data_dir", default="", metavar="DIR", help="default: the cache folder of data.prepare"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
