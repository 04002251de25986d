"""What z must beat: raw pixels and the untrained encoder, through the same probe.

They depend on the config and the data alone, so they are measured once a workdir and kept in
workdir/probe/baselines.json, under a hash of what they depend on.
"""

import dataclasses
import json
import math
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments import networks
from experiments.probing import (
    FEATURES,
    Job,
    batches,
    by_label,
    chosen_images,
    measured,
    settings_hash,
    tables,
    write_json,
)
from soda_jax.evaluation.baselines import calibrated
from soda_jax.evaluation.features import Extractor, Table, pixels
from soda_jax.evaluation.linear_probe import held_out_accuracy
from soda_jax.types import Tree

TRIAL_IMAGES = 4096  # of train, on which the untrained encoder's BatchNorm statistics are made and chosen


def baselines(job: Job) -> dict[str, Any]:
    """{"labels": label -> {"untrained_z", "untrained_pooled", "pixels"} -> scores, "statistics", ...}.

    Measured once; read from the workdir afterwards, as long as what they depend on stays as it was.
    """
    key, path = settings_hash(job), job.folder / "baselines.json"
    if path.is_file() and (kept := json.loads(path.read_text()))["key"] == key:
        job.say(f"baselines: kept from an earlier probe in {path}")
        return kept["baselines"]
    job.say("baselines: the untrained encoder and raw pixels (measured once)")
    made = measure_baselines(job)
    write_json(path, {"key": key, "baselines": made})
    return made


def measure_baselines(job: Job) -> dict[str, Any]:
    """The untrained encoder, with the better of its BatchNorm statistics, and raw pixels in one pass."""
    statistics, variables = untrained_encoder(job)

    def encode(variables: Tree, images: jax.Array) -> dict[str, jax.Array]:
        return {**job.run.method.encode(variables, images), "pixels": pixels(images)}

    found = tables(job, Extractor(encode, (*FEATURES, "pixels")), variables)
    scores = {f"untrained_{name}": measured(job, found, name, f"untrained {name}") for name in FEATURES}
    scores["pixels"] = measured(job, found, "pixels", "pixels")
    count = found.train.features["pixels"].shape[1]
    side = math.isqrt(count // job.run.config.data.channels)
    return {"labels": by_label(scores), "statistics": statistics, "pixels_side": side}


def untrained_encoder(job: Job) -> tuple[str, Tree]:
    """("initial" | "calibrated", variables): the statistics that probe better on held-out training images."""
    initial = job.run.untrained_variables()
    if not initial["batch_stats"]:
        return "initial", initial
    make = partial(batches, job, "train", trial_images(job))
    candidates = {"calibrated": with_statistics(job, initial), "initial": initial}
    accuracy = {
        name: trial(job, job.encoder(variables, make(), job.dataset.views))
        for name, variables in candidates.items()
    }
    best = max(accuracy, key=accuracy.get)
    told = ", ".join(f"{name} {value:.1%}" for name, value in accuracy.items())
    job.say(f"  BatchNorm statistics of the untrained encoder, on held-out training images: {told}")
    return best, candidates[best]


def trial_images(job: Job) -> np.ndarray:
    """Numbers of the training images that the statistics are made and chosen on."""
    return chosen_images(job, "train", min(TRIAL_IMAGES, job.probe.max_train or TRIAL_IMAGES))


def with_statistics(job: Job, initial: Tree) -> Tree:
    """The untrained variables with BatchNorm statistics of training images."""
    images, run = batches(job, "train", trial_images(job), whole=True), job.run
    cameras = networks.cameras_alone(run.config)
    return calibrated(run.method, initial, run.spec, images, run.config.seed, cameras=cameras)


def untrained_again(job: Job) -> Tree:
    """The untrained encoder that the baselines were measured with."""
    initial = job.run.untrained_variables()
    return with_statistics(job, initial) if baselines(job)["statistics"] == "calibrated" else initial


def trial(job: Job, table: Table) -> float:
    """Held-out accuracy of pooled features, averaged over the labels, by a short probe."""
    linear = job.settings.linear
    short = dataclasses.replace(linear, images=min(linear.images, 20 * len(table)))
    classes = job.dataset.labels
    labels = np.stack([table.labels[name] for name in classes])
    right = held_out_accuracy(table.features["pooled"], labels, tuple(classes.values()), table.groups, short)
    return float(right.mean())
