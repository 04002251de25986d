"""What the tasks of the probe beyond accuracies measure of one encoder's z: plain values, as JSON keeps them."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from experiments.probing import FEATURES, Job, Tables, chosen_images, shown, tables
from soda_jax.evaluation.disentanglement import DCI, by_section, dci, factor_vae, mig, top_gap
from soda_jax.evaluation.importance import importance, single_code_accuracy
from soda_jax.evaluation.scores import answer, chance, f1
from soda_jax.evaluation.section_probe import section_accuracy
from soda_jax.types import Tree

Found = dict[str, Any]
Pair = tuple[np.ndarray, np.ndarray]  # codes [b, n], factors [b, f]


def few_tables(job: Job, variables: Tree) -> Tables:
    """Features of config.disentanglement.images images of each split, never augmented."""
    limit = job.run.config.disentanglement.images
    train, test = (chosen_images(job, split, limit) for split in ("train", "test"))
    return tables(job, job.encoder, variables, (train, test), augment=False)


def sections_of(job: Job) -> int:
    """Of z; a method without sections has one."""
    return getattr(job.run.method, "sections", 1)


def pairs(job: Job, found: Tables) -> tuple[Pair, Pair]:
    """z and the labels, side by side, of train and of test."""

    def pair(table) -> Pair:
        return table.features["z"], np.stack([table.labels[name] for name in job.dataset.labels], axis=1)

    return pair(found.train), pair(found.test)


def threads() -> int:
    """Of classifiers fitted side by side."""
    return len(os.sched_getaffinity(0))


def dci_task(job: Job, found: Tables) -> Found:
    """D, C and I of the dimensions and of the sections of z by boosted trees, and again by linear classifiers."""
    trees, labels = job.run.config.disentanglement.trees, list(job.dataset.labels)
    train, test = pairs(job, found)
    made = {}
    for kind in (trees, "linear"):
        show = partial(shown, what=f"dci, {kind}", total=len(labels), say=job.say, unit="labels")
        made[kind] = importance(train, test, kind, threads(), show)
    whole, accuracy = made[trees]
    return {
        **both(job, *made[trees]),
        "linear": both(job, *made["linear"]),
        "trees": trees,
        "images": len(train[0]),
        "accuracy": named(labels, accuracy),
        "importance": by_section(whole, sections_of(job)).tolist(),
    }


def both(job: Job, whole: np.ndarray, accuracy: np.ndarray) -> Found:
    """The scores with dimensions as codes, and with sections as codes."""
    codes = {"z": whole, "sections": by_section(whole, sections_of(job))}
    return {name: figures(dci(weights, accuracy)) for name, weights in codes.items()}


def figures(scores: DCI) -> dict[str, float]:
    names = ("disentanglement", "completeness", "informativeness")
    return {name: getattr(scores, name) for name in names}


def mig_task(job: Job, found: Tables) -> Found:
    return by_label(job, mig(*pairs(job, found)[0]))


def sap_task(job: Job, found: Tables) -> Found:
    train, test = pairs(job, found)
    show = partial(shown, what="sap", total=train[0].shape[1], say=job.say, unit="dimensions")
    return by_label(job, top_gap(single_code_accuracy(train, test, threads(), show)))


def factor_vae_task(job: Job, found: Tables) -> Found:
    return {"z": factor_vae(*pairs(job, found), seed=job.probe.seed)}


def by_label(job: Job, values: np.ndarray) -> Found:
    """The mean, and each label's part."""
    return {"z": float(values.mean()), "labels": named(job.dataset.labels, values)}


def named(names, values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


def sections_task(job: Job, found: Tables) -> Found:
    """Test accuracy of the linear probe on each section alone [section][label], and on all of z."""
    labels, linear = job.dataset.labels, job.settings.linear
    alone = section_accuracy(found.train, found.test, sections_of(job), labels, linear)
    answers = answer(found.train, found.test, "z", labels, linear)
    whole = {name: float(np.mean(answers[name].predicted == found.test.labels[name])) for name in labels}
    return {
        "labels": list(labels),
        "linear": alone.tolist(),
        "whole": whole,
        "chance": {name: chance(found.train, found.test, name, count) for name, count in labels.items()},
    }


def f1_task(job: Job, found: Tables) -> Found:
    """feature -> label -> F1 of the linear probe's answers on test, of labels with two classes, and their mean."""
    return {feature: f1_of(job, found, feature) for feature in FEATURES}


def f1_of(job: Job, found: Tables, feature: str) -> Found:
    """The heads are those that the accuracies are of."""
    labels, linear = job.dataset.labels, job.settings.linear
    answers = answer(found.train, found.test, feature, labels, linear, found.augmented)
    scores = {name: f1(answers[name].predicted, found.test.labels[name]) for name in binary_labels(job)}
    return {"mean": float(np.mean(list(scores.values()))), "labels": scores}


def binary_labels(job: Job) -> dict[str, int]:
    """Attributes: the labels that are there or not."""
    return {name: count for name, count in job.dataset.labels.items() if count == 2}


TASKS: Mapping[str, Callable[[Job, Tables], Found]] = {
    "dci": dci_task,
    "mig": mig_task,
    "sap": sap_task,
    "factor_vae": factor_vae_task,
    "sections": sections_task,
    "f1": f1_task,
}
