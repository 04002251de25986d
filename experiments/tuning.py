"""What mains share that train something on top of a run: experiments.finetune, .dense and .noisy_classifier."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import build, xla_flags
from experiments.quickstart import Stage, Stopped, run_all, trained
from experiments.runs import Run, open_run
from soda_jax.training.checkpoints import CheckpointError
from soda_jax.training.signals import sigterm_raises, status_of

Work = Callable[[argparse.Namespace, Sequence[str]], Any]  # (arguments, --config.KEY=VALUE ...)


def run_main(parser: argparse.ArgumentParser, work: Work, argv: Sequence[str] | None) -> int:
    """Reads the command line, works, and puts what goes wrong in a line.

    Returns the exit status: 0, or that of the training where it failed.
    """
    arguments, more = parser.parse_known_args(argv)
    strange = [text for text in more if not text.startswith("--config.")]
    if strange:
        parser.error(f"unexpected arguments: {' '.join(strange)}")
    name = parser.prog.split()[-1]
    xla_flags.set_up()
    try:
        with sigterm_raises():
            work(arguments, more)
    except Stopped as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        return stop.status
    except (ValueError, OSError, CheckpointError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{name}: stopped; the same command goes on from there", file=sys.stderr)
        return status_of(stop)
    return 0


def as_flags(given: Mapping[str, Any]) -> list[str]:
    """{"train.images": 8, "ddae.tap": None} -> ["--config.train.images=8"]"""
    return [f"--config.{key}={value}" for key, value in given.items() if value is not None]


def train(config: str, folder: Path, flags: Sequence[str]) -> Run:
    """`experiments.train` with this config in this folder, or what it has left there. Raises Stopped."""
    command = ("experiments.train", f"--config={config}", f"--workdir={folder}", *flags)
    run_all([Stage(name="train", command=command)])
    run = open_run(folder)
    if not trained(folder, build.lengths(run.config).steps):
        raise Stopped("training ended before it was done; the same command goes on from there", 1)
    return run
