"""What a RepFusion run takes from the diffusion net that it learns from: the averaged parameters, frozen.

They are taken once, before the first step; from then on the run's own checkpoints hold them. WORKDIR/teacher.json says
which run and step they are of.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import networks, runs
from experiments.job import Job
from experiments.probing import write_json
from experiments.runs import Run, open_run
from soda_jax.methods.base import FROZEN
from soda_jax.methods.ddae import DDAE
from soda_jax.methods.edm_augment import LABELS
from soda_jax.parallel.preflight import check_alike
from soda_jax.types import Tree

FILE = "teacher.json"
MODEL = ("channels", "multipliers", "blocks", "attention", "head_channels", "resample", "patch", "layout")
MODEL += ("denoiser", "dit_size", "dit_width", "dit_depth", "dit_heads")
DIFFUSION = ("framework", "schedule", "steps", "prediction")

Say = Callable[[str], None]


def teacher_keys(config: ConfigDict) -> dict[str, object]:
    """The keys of `teacher` that must be those of a DDAE run with this config."""
    found = {name: config.model[name] for name in MODEL} | {
        name: config.diffusion[name] for name in DIFFUSION
    }
    found |= {"label_dim": LABELS if config.ddae.augment else 0}
    found |= {name: config.ddae[name] for name in ("self_condition", "classes")}
    return {**found, "image_size": config.data.image_size}


def usual_tap(config: ConfigDict) -> str:
    """What is distilled of this config's teacher: halfway through a DiT, which has no tap of the default's name."""
    c = config.teacher
    return networks.dit(c, config.data.channels).middle if networks.is_dit(c) else c.tap


def frozen_teacher(job: Job, say: Say) -> Tree:
    """What a run that begins now takes over, on the host.

    Raises ValueError, naming `teacher.workdir`, where it is no DDAE run that fits, and what `open_run` raises.
    """
    run = teacher_run(job.config)
    variables = run.ema_variables()
    about = {"workdir": str(run.workdir), "step": run.step, "teacher": runs.fingerprint(variables)}
    check_alike({"the teacher": json.dumps(about)})
    say(f"the teacher is the net of step {run.step} of {run.workdir}")
    write_json(job.workdir / FILE, about)
    return {"batch_stats": {FROZEN: {"teacher": jax.tree.map(np.asarray, variables["params"])}}}


def teacher_run(config: ConfigDict) -> Run:
    """The DDAE run that `teacher.workdir` names, which fits the config."""
    workdir = config.teacher.workdir
    if not workdir or not (Path(workdir) / "config.json").is_file():
        raise ValueError(
            f"teacher.workdir={workdir!r} must name a trained DDAE run: set --config.teacher.workdir=DIR"
        )
    run = open_run(workdir)
    if not isinstance(run.method, DDAE) or run.step is None:
        raise ValueError(
            f"teacher.workdir={workdir} must be a DDAE run with a checkpoint, found method={run.config.method!r} "
            f"at step {run.step}"
        )
    theirs = teacher_keys(run.config)
    apart = [
        f"--config.teacher.{key}={value!r}" for key, value in theirs.items() if config.teacher[key] != value
    ]
    if run.config.data.channels != config.data.channels:
        apart.append(f"--config.data.channels={run.config.data.channels}")
    if apart:
        raise ValueError(
            f"the config is not that of the net in teacher.workdir={workdir}: set {' '.join(apart)}, or take "
            f"--config=experiments/configs/repfusion_fashion_mnist.py:{workdir}"
        )
    return run
