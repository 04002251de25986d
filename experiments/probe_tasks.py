"""`--tasks` of the probe: what it measures beyond linear and k-NN accuracies, each kept on its own.

A task adds its block to results.json: {**what it measured of the trained encoder, "untrained": the same of the
untrained one, "made_from": hashes}. A block that is there and made from the same is not made again, and what was
measured of the untrained encoder is kept for all steps in workdir/probe/untrained.json.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import runs
from experiments.disentangling import TASKS, Found, binary_labels, few_tables
from experiments.probe_baselines import untrained_again
from experiments.probing import Job, Tables, settings_hash, tables, write_json
from soda_jax.evaluation.importance import check_installed
from soda_jax.nn.checks import check_choice
from soda_jax.types import Tree

ALWAYS = ("linear", "knn")
NAMES = (*ALWAYS, *TASKS)
OF_FACTORS = ("dci", "mig", "sap", "factor_vae")


def with_tasks(job: Job, tasks: Sequence[str]) -> Job:
    """The job with these tasks. ValueError for one that is none, or that this data set has not the labels for."""
    for name in tasks:
        if name not in NAMES:
            raise ValueError(
                f"--tasks: expected some of {', '.join(NAMES)}, separated by commas, found {name!r}"
            )
    check_labels(job, tasks)
    config = job.run.config.disentanglement
    check_choice("disentanglement.trees", config.trees, ["histogram", "boosting"])
    if config.images < 0:
        raise ValueError(f"config.disentanglement.images must be 0 (all) or more, found {config.images}")
    if {"dci", "sap"} & set(tasks):
        check_installed()
    return dataclasses.replace(job, tasks=tuple(tasks))


def check_labels(job: Job, tasks: Sequence[str]) -> None:
    """ValueError where scores of several factors are asked for and there is one, or F1 and no attributes."""
    labels, name = job.dataset.labels, job.dataset.name
    hopeless = [task for task in tasks if task in OF_FACTORS]
    if hopeless and len(labels) < 2:
        raise ValueError(
            f"--tasks: {', '.join(hopeless)} tell how labels are kept apart, which needs 2 or more; data set "
            f"{name!r} has {', '.join(labels)} only: leave them out"
        )
    if "f1" in tasks and not binary_labels(job):
        raise ValueError(
            f"--tasks: f1 is for attributes, labels with 2 classes; data set {name!r} has {labels}: leave it out"
        )


def made_from(job: Job, variables: Tree) -> dict[str, str]:
    """Hashes of all that a task's block depends on."""
    return {"encoder": runs.fingerprint(variables), "settings": settings_hash(job, "disentanglement")}


def kept(found: Found, key: dict[str, str]) -> Found:
    """The blocks of earlier results that are still what they would be."""
    return {name: found[name] for name in TASKS if found.get(name, {}).get("made_from") == key}


def add_tasks(job: Job, path: Path, variables: Tree, found: Found) -> Found:
    """`found` with the blocks that are missing, written to `path` whenever one is done."""
    key, missing = made_from(job, variables), [name for name in TASKS if name in job.tasks]
    missing = [name for name in missing if name not in kept(found, key)]
    if missing:
        trained, base = Measured(job, variables), Untrained(job)
    for name in missing:
        start = time.monotonic()
        found = {**found, name: {**trained(name), "untrained": base(name), "made_from": key}}
        write_json(path, found)
        job.say(f"  {name}: {time.monotonic() - start:.1f} s, in {path}")
    return found


class Measured:
    """Tasks of one encoder, whose features are made once."""

    def __init__(self, job: Job, variables: Tree):
        self.job, self.variables, self._made = job, variables, {}

    def __call__(self, name: str) -> Found:
        return TASKS[name](self.job, self.tables(few_tables if name != "f1" else all_tables))

    def tables(self, make: Any) -> Tables:
        if make not in self._made:
            self._made[make] = make(self.job, self.variables)
        return self._made[make]


def all_tables(job: Job, variables: Tree) -> Tables:
    """Features of the images that the accuracies are measured on."""
    return tables(job, job.encoder, variables)


class Untrained:
    """Tasks of the untrained encoder, read from the workdir where they were measured before."""

    def __init__(self, job: Job):
        self.job, self.path = job, job.folder / "untrained.json"
        self.key = settings_hash(job, "disentanglement")
        self.found = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.measured: Measured | None = None

    def __call__(self, name: str) -> Found:
        if self.found.get(name, {}).get("key") != self.key:
            self.measured = self.measured or Measured(self.job, untrained_again(self.job))
            self.found[name] = {"key": self.key, "found": self.measured(name)}
            write_json(self.path, self.found)
        return self.found[name]["found"]
