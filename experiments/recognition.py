"""What novel views show: how often a judge reads the labels of the scene off them, and off the true views.

The judge is that of `experiments.edit`, a network trained on real pixels (editing/jury.py): it never sees z.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.sources import DataSet
from experiments.editing.jury import percent, summon
from experiments.held_out import Pairs, Scene
from experiments.probing import Job, settings_of
from experiments.runs import Run
from soda_jax.evaluation.intervals import accuracy_interval
from soda_jax.report.exhibit import Table

TITLES = {"one_sample": "one sample", "mean": "mean of the samples", "regressor": "regressor"}
TITLES |= {"true": "true views"}


def check(dataset: DataSet, judge_images: int) -> None:
    """Raises ValueError (or DataError) where there is nothing to read, or no time to learn it in."""
    if judge_images < 0:
        raise ValueError(f"--judge_images must be 0 (no judge) or more, found {judge_images}")
    if judge_images and not dataset.labels:
        raise DataError(
            f"--judge_images={judge_images}: a judge reads labels, and data set {dataset.name!r} has none: leave it out"
        )


def recognised(
    run: Run,
    dataset: DataSet,
    judge_images: int,
    scenes: Sequence[Scene],
    pairs: Pairs,
    views: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """label -> kind of view -> {"share", "ci95"} of views that are read rightly, with 95% intervals over scenes.

    views: samples uint8 [n, samples, h, w, c] of "soda" and, where there is one, of "regressor".
    """
    jury = summon(Job(run=run, dataset=dataset, settings=settings_of(run.config)), judge_images)
    drawn = views["soda"]
    shown = {"one_sample": drawn[:, 0], "mean": mean_image(drawn)}
    shown |= {"regressor": views["regressor"][:, 0]} if "regressor" in views else {}
    verdicts = {kind: jury(images) for kind, images in (shown | {"true": pairs.targets}).items()}

    def right(label: str, found: np.ndarray) -> dict[str, Any]:
        truth = np.array([scene.example["labels"][label] for scene in scenes])
        value, interval = accuracy_interval(found == truth[pairs.row], pairs.row)
        return {"share": value, "ci95": list(interval)}

    return {
        label: {kind: right(label, found[label]) for kind, found in verdicts.items()}
        for label in dataset.labels
    }


def mean_image(samples: np.ndarray) -> np.ndarray:
    """uint8 [n, samples, h, w, c] to [n, h, w, c]."""
    return np.round(samples.astype(np.float32).mean(axis=1)).astype(np.uint8)


def table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each kind of view, a column for each label."""
    kinds = [kind for kind in TITLES if all(kind in by_kind for by_kind in found.values())]
    rows = [[TITLES[kind], *(percent(by_kind[kind]) for by_kind in found.values())] for kind in kinds]
    caption = (
        "How often a network trained on real images reads the scene's label off a view; 95% intervals over scenes. "
        "Its row of the true views says how well it reads."
    )
    return Table(head=["", *found], rows=rows, caption=caption)
