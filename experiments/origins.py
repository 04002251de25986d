"""What a run takes over from another one before its first step, by method; its own checkpoints hold it from then on."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runs
from experiments.frozen import frozen, reading
from experiments.initial_nets import initial_net
from experiments.job import Job
from experiments.priors import Note, Say, frozen_encoder
from experiments.probing import write_json
from experiments.runs import open_run
from experiments.teachers import frozen_teacher
from soda_jax.methods.base import FROZEN
from soda_jax.methods.ddae import DDAE
from soda_jax.methods.reading import Reading
from soda_jax.parallel.preflight import check_alike
from soda_jax.parallel.sharding import put_whole
from soda_jax.training.state import TrainState
from soda_jax.types import Tree

FILE = "finetune.json"
PLACE = ("ddae.tap", "ddae.level", "ddae.draws")  # keys of the origin's config that this run's may change


def taken_for(job: Job, first: int, say: Say, note: Note) -> Tree | None:
    """What is taken over of {"params", "batch_stats"}, on the host; None for other methods, and for what goes on.

    Raises ValueError, naming the `workdir` of `prior`, `teacher`, `finetune` or `noisy_classifier`, where that is no
    run that fits, and what `open_run` raises.
    """
    take = {
        "latent_prior": lambda: frozen_encoder(job, say, note),
        "repfusion": lambda: frozen_teacher(job, say),
        "finetune": lambda: trained_encoder(job, say),
        "dense": lambda: trained_encoder(job, say),
        "noisy_classifier": lambda: read_net(job, say),
        "ddae": lambda: initial_net(job, say),
    }.get(job.config.method)
    return take() if take and not first else None


def trained_encoder(job: Job, say: Say) -> Tree | None:
    """The averaged encoder that fine-tuning begins with; None: from scratch. finetune.json says whose it is."""
    c = job.config.finetune
    if c.start == "scratch":
        say("fine-tuning begins from scratch (finetune.start)")
        return None
    if not c.workdir or not (Path(c.workdir) / "config.json").is_file():
        raise ValueError(
            f"finetune.workdir={c.workdir!r} must name a trained run: {advice('DIR', 'finetune')}, or set "
            "--config.finetune.workdir=DIR"
        )
    flat = dict(runs.flat(runs.plain(job.config)))
    run = open_run(c.workdir, c.step or None, {key: flat[key] for key in PLACE})
    if run.step is None:
        raise ValueError(f"finetune.workdir={c.workdir} has no checkpoint yet: train it first")
    # a student's bundle has another z than the student itself (frozen.py), which is trained on here
    variables = (reading if isinstance(run.method, Reading) else frozen)(run).variables
    check_fits("finetune", c.workdir, job.abstract.params["encoder"], variables["params"])
    about = {"workdir": str(run.workdir), "step": run.step, "encoder": runs.fingerprint(variables)}
    check_alike({"the run that is fine-tuned": json.dumps(about)})
    say(f"the encoder is that of step {run.step} of {run.workdir}")
    write_json(job.workdir / FILE, about)
    parts = {name: tree for name, tree in variables.items() if tree}
    return {name: {"encoder": jax.tree.map(np.asarray, tree)} for name, tree in parts.items()}


def read_net(job: Job, say: Say) -> Tree | None:
    """The averaged DDAE that a noise-conditional classifier reads; None: it has a net of its own.

    noisy_classifier.json says whose it is.
    """
    c = job.config.noisy_classifier
    if c.backbone != "ddae":
        return None
    if not c.workdir or not (Path(c.workdir) / "config.json").is_file():
        raise ValueError(
            f"noisy_classifier.workdir={c.workdir!r} must name a trained DDAE run: {advice('DIR')}"
        )
    run = open_run(c.workdir, c.step or None)
    if not isinstance(run.method, DDAE) or run.step is None:
        raise ValueError(
            f"noisy_classifier.workdir={c.workdir} must be a DDAE run with a checkpoint, found "
            f"method={run.config.method!r} at step {run.step}"
        )
    params = run.ema_variables()["params"]
    check_fits("noisy_classifier", c.workdir, job.abstract.batch_stats[FROZEN]["ddae"], params)
    about = {"workdir": str(run.workdir), "step": run.step, "net": runs.fingerprint(params)}
    check_alike({"the net that is read": json.dumps(about)})
    say(f"the net that is read is that of step {run.step} of {run.workdir}")
    write_json(job.workdir / "noisy_classifier.json", about)
    return {"batch_stats": {FROZEN: {"ddae": jax.tree.map(np.asarray, params)}}}


def advice(workdir: str, kind: str = "noisy_classifier") -> str:
    """What to do about a config that does not fit."""
    return f"take --config=experiments/configs/{kind}.py:{workdir}"


def check_fits(kind: str, workdir: str, needed: Tree, params: Tree) -> None:
    """ValueError unless the parameters are those that are needed; kind: the group of `workdir` in the config."""

    def shapes(tree: Tree) -> Mapping[str, tuple]:
        return {jax.tree_util.keystr(path): x.shape for path, x in jax.tree.leaves_with_path(tree)}

    ours, theirs = shapes(needed), shapes(params)
    if ours != theirs:
        apart = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise ValueError(
            f"the config is not that of the run in {kind}.workdir={workdir} ({apart[0]} is "
            f"{theirs.get(apart[0])} there, and {ours.get(apart[0])} here): {advice(workdir, kind)}"
        )


def with_taken(state: TrainState, taken: Tree | None, job: Job) -> TrainState:
    """A fresh state with what it takes over in place, in the averages too."""
    if taken is None:
        return state
    params, stats = taken.get("params", {}), taken.get("batch_stats", {})
    return state.replace(
        params=placed(state.params, params, job),
        ema_params=placed(state.ema_params, params, job),
        batch_stats=placed(state.batch_stats, stats, job),
        ema_batch_stats=placed(
            state.ema_batch_stats, {k: v for k, v in stats.items() if k in state.ema_batch_stats}, job
        ),
    )


def placed(tree: Tree, new: Tree, job: Job) -> Tree:
    """The tree with these parts instead of its own, where those lie; what it has not yet is on every device."""
    found = put_whole(new, job.mesh)
    for name in new.keys() & tree.keys():
        where = jax.tree.map(lambda x: x.sharding, tree[name])
        found[name] = jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=where)(found[name])
    return {**tree, **found}
