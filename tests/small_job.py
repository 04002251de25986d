"""A training job of seconds: a tiny SODA on 23 small grey images, checkpoints every 5 steps."""

import json
from pathlib import Path

from experiments import train
from experiments.job import Job, prepare
from soda_jax.training.ledger import TIMINGS
from soda_jax.training.signals import StopRequest
from tests import prepared_data
from tests.small_config import get_config


def job(workdir: Path, changes: dict | None = None) -> Job:
    """The job of a workdir; `changes`: dotted keys of the config and their values."""
    prepared_data.single(1)
    c = get_config()
    with c.unlocked():
        c.update_from_flattened_dict(changes or {})
    return prepare(c, Path(workdir))


def run(workdir: Path, changes: dict | None = None, stop=None, say=lambda text: None):
    """Trains in this process; returns how it ended."""
    return train.run(job(workdir, changes), stop or StopRequest(), say)


def records(workdir: Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


class StopAt(StopRequest):
    """Asks to stop after a number of steps of this run: it is asked once a step."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0
