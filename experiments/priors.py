"""What a latent prior takes from the SODA run whose latents it models: the encoder, frozen, and the moments of z.

WORKDIR/prior.json says which run and step they are of, with a hash of the encoder, by which the decoder is known
again. They are taken once, before the first step; from then on the prior's own checkpoints hold them.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runs
from experiments.job import Job
from experiments.probing import plain_stream, shown, write_json
from experiments.runs import Run, open_run
from soda_jax.evaluation import frechet
from soda_jax.evaluation.features import Extractor
from soda_jax.methods.base import FROZEN, encoder_variables
from soda_jax.methods.soda import SODA
from soda_jax.parallel.preflight import check_alike
from soda_jax.types import Tree

FILE = "prior.json"
# What the encoder is made of, and fed with: alike in both configs.
KEYS = tuple(f"model.{key}" for key in ("encoder", "encoder_width", "stem", "residual_gain", "vit_patch"))
KEYS += (
    "model.pooled_norm",
    "model.width_multiplier",
    "model.latent_dim",
    "model.dtype",
    "data.name",
    "data.zoom",
    "data.source_size",
    "data.channels",
)

Say = Callable[[str], None]
Note = Callable[[str, int], None]  # phase and step, for the watchdog


def frozen_encoder(job: Job, say: Say, note: Note) -> Tree:
    """What a prior that begins now takes over, on the host.

    Raises ValueError, naming `prior.workdir`, where it is no run that fits, and what `open_run` raises.
    """
    run = soda_run(job.config, job.config.prior.workdir)
    variables = encoder_variables(run.encoder_variables())
    about = {"workdir": str(run.workdir), "step": run.step, "encoder": runs.fingerprint(variables)}
    check_alike({"the SODA run of the prior": json.dumps(about)})
    say(f"the encoder is that of step {run.step} of {run.workdir}; measuring its latents ...")
    moments = measured(job, run, variables, say, note)
    write_json(job.workdir / FILE, {**about, "images": moments.count})
    latent = {"mean": moments.mean.astype(np.float32), "covariance": moments.covariance.astype(np.float32)}
    return {"batch_stats": {FROZEN: {"encoder": jax.tree.map(np.asarray, variables), "latent": latent}}}


def measured(job: Job, run: Run, variables: Tree, say: Say, note: Note) -> frechet.Moments:
    """Mean and covariance of z over all plain training images."""
    encode = Extractor(lambda variables, images: encoded(run.method, variables, images), ("z",), job.mesh)
    batches = -(-len(job.dataset.split("train")) * job.dataset.views // job.config.probe.batch)

    def latents() -> Iterator[np.ndarray]:
        with plain_stream(job.dataset, "train", job.config, job.config.probe.batch) as stream:
            for piece in encode.stream(variables, shown(stream, "train", batches, say)):
                note("latents", 0)
                yield piece["features"]["z"]

    return frechet.gathered(latents())


def encoded(method: SODA, variables: Tree, images: jax.Array) -> dict[str, jax.Array]:
    """Features by the variables of the encoder alone."""
    whole = {"params": {"encoder": variables["params"]}, "batch_stats": {}}
    if "batch_stats" in variables:
        whole["batch_stats"] = {"encoder": variables["batch_stats"]}
    return method.encode(whole, images)


def soda_run(config: ConfigDict, workdir: str | Path, step: int | None = None) -> Run:
    """The SODA run in this folder at this step (None: its newest), which fits the config of a prior.

    Raises ValueError or FileNotFoundError, naming what to change, where it does not.
    """
    if not str(workdir):
        raise ValueError("prior.workdir must name a trained SODA run: set --config.prior.workdir=DIR")
    if not (Path(workdir) / "config.json").is_file():
        raise FileNotFoundError(
            f"prior.workdir={workdir}: there is no run there; name a trained SODA run, or the folder that it moved to"
        )
    run = open_run(workdir, step)
    if not isinstance(run.method, SODA) or run.step is None:
        raise ValueError(
            f"prior.workdir={workdir} must be a SODA run with a checkpoint, found method={run.config.method!r} "
            f"at step {run.step}"
        )
    check_fits(config, run)
    return run


def check_fits(config: ConfigDict, run: Run) -> None:
    """Raise ValueError, with each key, where the encoders of the configs would not be one and the same."""
    ours, theirs = (dict(runs.flat(runs.plain(c))) for c in (config, run.config))
    apart = [f"--config.{key}={theirs[key]!r}" for key in KEYS if ours[key] != theirs[key]]
    if apart:
        raise ValueError(
            f"the config is not that of the encoder in prior.workdir={run.workdir}: set {' '.join(apart)}, or take "
            f"--config=experiments/configs/latent_prior.py:{run.workdir}"
        )


def decoder_of(prior: Run, variables: Tree, workdir: str | None) -> tuple[Run, Tree]:
    """The SODA run that decodes what a prior samples, and its averaged variables.

    workdir: where it lies now; None: where it lay. Raises ValueError where its encoder is another one, and what
    `soda_run` and `open_run` raise where it, or its checkpoint of that step, is gone.
    """
    path = prior.workdir / FILE
    if not path.is_file():
        raise FileNotFoundError(f"--workdir={prior.workdir} has no {FILE}: it is no run of a latent prior")
    about = json.loads(path.read_text())
    run = soda_run(prior.config, workdir or about["workdir"], about["step"])
    whole = run.ema_variables()
    if runs.fingerprint(encoder_variables(whole)) != runs.fingerprint(
        variables["batch_stats"][FROZEN]["encoder"]
    ):
        raise ValueError(
            f"{run.workdir} at step {run.step} has another encoder than the prior was trained on: give the right run "
            "as --decoder=DIR, or train the prior anew"
        )
    return run, whole
