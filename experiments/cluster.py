"""What the mains do about being one of several processes: flags, joining, and ending together.

--distributed=auto|off   auto: join the others if a launcher started several (default); off: run alone
--coordinator=HOST:PORT --processes=N --process=I   said by hand, where no launcher says it
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import jax
from absl import flags

from experiments import runs
from experiments.job import Job
from soda_jax.parallel import processes
from soda_jax.parallel.joining import JoinError, Place, join
from soda_jax.parallel.watchdog import Watchdog
from soda_jax.training.checkpoints import CheckpointError, versions
from soda_jax.training.signals import sigterm_raises, status_of

HELP = {
    "distributed": "auto: join the other processes if a launcher started several; off: run alone.",
    "coordinator": "HOST:PORT of process 0, where no launcher says it.",
    "processes": "How many processes take part, where no launcher says it.",
    "process": "Number of this process, from 0, where no launcher says it.",
    "join_timeout": "Seconds to wait for the other processes at the start.",
    "heartbeat": "Seconds of silence after which a process counts as dead, and the others end.",
}
DEFAULTS = {"join_timeout": 300, "heartbeat": 60}
LINGER = 2.0  # seconds: JAX's service lives in process 0; without it the others are aborted, mid-word perhaps
OWN_KEYS = ("data.dir", "compilation_cache")  # of the config: hosts may keep things in different places
ROOT = Path(__file__).resolve().parent.parent


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """For mains that read absl's flags."""
    flags.DEFINE_enum("distributed", "auto", ["auto", "off"], HELP["distributed"], flag_values=values)
    flags.DEFINE_string("coordinator", None, HELP["coordinator"], flag_values=values)
    for name in ("processes", "process", *DEFAULTS):
        flags.DEFINE_integer(name, DEFAULTS.get(name), HELP[name], flag_values=values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For mains that read their arguments with argparse."""
    group = parser.add_argument_group("several processes")
    group.add_argument("--distributed", default="auto", choices=["auto", "off"], help=HELP["distributed"])
    group.add_argument("--coordinator", metavar="HOST:PORT", help=HELP["coordinator"])
    for name in ("processes", "process", *DEFAULTS):
        group.add_argument(f"--{name}", type=int, default=DEFAULTS.get(name), help=HELP[name])


def join_others(values: flags.FlagValues | argparse.Namespace) -> None:
    """Joins the other processes as the flags and the environment say, before JAX computes; says so.

    Raises JoinError where that fails.
    """
    place = Place(coordinator=values.coordinator, processes=values.processes, process=values.process)
    found = join(values.distributed, place, timeout=values.join_timeout, heartbeat=values.heartbeat)
    if processes.process_count() > 1:
        print(found, flush=True)


def carry_out(
    main: str, arguments: argparse.Namespace, folder: Path, work: Callable[[], None], *, if_stopped: str
) -> int:
    """What every main but training does around its work, among all processes; returns the exit status.

    main: its name. folder: where errors.log is kept. if_stopped: what the same command does after SIGTERM or Ctrl-C.
    """
    try:
        join_others(arguments)
        with sigterm_raises(), ending_together(folder):
            work()
    except (ValueError, OSError, CheckpointError, JoinError) as error:
        print(f"{main}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{main}: stopped; the same command {if_stopped}", file=sys.stderr)
        return status_of(stop)
    return 0


def facts(job: Job) -> dict[str, str]:
    """What must be alike in all processes of a run, for `check_alike`."""
    kinds = sorted(device.device_kind for device in jax.local_devices())
    config = {
        key: json.dumps(value) for key, value in runs.flat(runs.plain(job.config)) if key not in OWN_KEYS
    }
    return {
        "code (hash of the .py files)": code_hash(),
        "python": platform.python_version(),
        "devices": ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds))),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "data set files": json.dumps(job.dataset.manifest, sort_keys=True),
        **{f"library {name}": version for name, version in versions().items()},
        **{f"config.{key}": value for key, value in config.items()},
    }


def code_hash(root: Path = ROOT) -> str:
    """12 hexadecimal digits of the code that runs."""
    digest = hashlib.sha256()
    for path in sorted(
        path for name in ("soda_jax", "data", "experiments") for path in (root / name).rglob("*.py")
    ):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def watchdog(job: Job) -> Watchdog:
    """Ends a run that hangs, and says who hangs; not yet started.

    Never one process at a terminal: who sits there sees it, or is in the debugger.
    """
    watched = processes.process_count() > 1 or not (sys.stdin and sys.stdin.isatty())
    return Watchdog(
        job.workdir / "processes",
        minutes=job.config.train.watchdog_minutes if watched else 0,
        process=processes.process_index(),
        processes=processes.process_count(),
    )


@contextmanager
def ending_together(workdir: Path) -> Iterator[None]:
    """One of several processes that fails says so with its number, and ends at once.

    It must not wait for the others at a barrier: they wait for it in the middle of a step. They see it go, and
    end too. What went wrong is also written to workdir/errors.log, where one looks for all hosts at once.
    """
    try:
        yield
    except Exception as error:
        if processes.process_count() == 1:
            raise
        report(error, workdir)
        if processes.is_main():
            time.sleep(LINGER)
        end_now(1)


def report(error: Exception, workdir: Path) -> None:
    """The number of this process and what went wrong, to stderr and to workdir/errors.log."""
    text = f"process {processes.process_index()}: error: {words_of(error)}"
    print(text, file=sys.stderr, flush=True)
    trace = "".join(traceback.format_exception(error))
    try:
        with (workdir / "errors.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n{trace}\n")
    except OSError as failure:
        print(f"cannot write {workdir}/errors.log ({failure.strerror}):\n{trace}", file=sys.stderr)


def words_of(error: Exception) -> str:
    """The error in words; what JAX says when another process is gone is translated."""
    text = f"{error}" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
    if any(sign in text for sign in ("Connection closed by peer", "Gloo", "Connection reset", "UNAVAILABLE")):
        return (
            "lost another process in the middle of the work; the same command goes on from the last checkpoint "
            f"once all are back ({text.splitlines()[0][:300]})"
        )
    return text


def end_now(status: int) -> None:
    """Ends this process without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
