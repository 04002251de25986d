"""A training job of seconds: a tiny SODA on 23 small grey images, checkpoints every 5 steps."""

import json
from pathlib import Path

from experiments import train
from experiments.configs import default
from experiments.job import Job, prepare
from soda_jax.training.signals import StopRequest
from tests import prepared_data

BATCH, STEPS, SAVE, LOG, WARMUP = 8, 14, 5, 3, 4  # an epoch of the 23 images ends within step 3
TIMINGS = {"images_per_second", "data_wait", "seconds"}


def get_config():
    """The default, tiny: a warm-up of 4 steps, and dropout and an EMA to get right."""
    c = default.get_config()
    c.compilation_cache = ""
    c.data.update(name="single1", dir=str(prepared_data.data_dir()), channels=1, pair="augment")
    c.data.update(image_size=8, source_size=8, threads=1)
    c.model.update(encoder_width=2, stem="strided", latent_dim=6)
    c.model.update(channels=4, multipliers=(1,), attention=(False,), blocks=1, groups=2)
    c.optimizer.update(learning_rate=1e-2, warmup_images=WARMUP * BATCH)
    c.train.update(batch=BATCH, images=STEPS * BATCH, log_every_images=LOG * BATCH)
    c.checkpoint.update(every_images=SAVE * BATCH, keep=10)
    c.samples.update(every_images=0, steps=2, count=2)
    c.monitor.update(every_images=0, batch=8)
    c.mesh.data = 1
    return c


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
