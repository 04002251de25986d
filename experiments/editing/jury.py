"""Who judges edited pictures: a network that was trained on real pixels, and what its verdicts add up to.

Kept in WORKDIR/edit/judge/ (judge.npz, results.json): it depends on the data alone, so all steps of a run share it.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.probing import Job, chosen_images, plain_stream, shown, write_json
from experiments.runs import digest
from soda_jax.evaluation.intervals import accuracy_interval
from soda_jax.evaluation.judge import SIDE, Judge, Training, shrunk, train_judge, untrained
from soda_jax.methods.base import to_uint8
from soda_jax.parallel import processes

MOST_TRAIN, MOST_TEST = 16_384, 4_096  # images of the splits that it is trained and examined on
BATCH = 256  # images read at a time
RELIABLE = 0.6  # labels that it reads less often than this from real pictures do not count in summaries
Verdicts = Mapping[str, np.ndarray]  # label -> class of each picture [n]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jury:
    """The judge, and how often it is right on real test images: label -> {"accuracy", "ci95"}."""

    judge: Judge
    report: Mapping[str, Mapping[str, Any]]

    @property
    def reliable(self) -> list[str]:
        """Labels that it reads well enough to count; all of them where it reads none."""
        good = [name for name, row in self.report.items() if row["accuracy"] >= RELIABLE]
        return good or list(self.report)

    def __call__(self, pictures: np.ndarray) -> Verdicts:
        """Of uint8 [..., h, w, c]: label -> class [...]."""
        found = self.judge(pictures.reshape(-1, *pictures.shape[-3:]))
        return {name: classes.reshape(pictures.shape[:-3]) for name, classes in found.items()}


def share(hits: np.ndarray) -> dict[str, Any]:
    """How often True, with its 95% interval; the first axis numbers the images, what follows goes with its image."""
    hits = np.asarray(hits, bool)
    groups = np.repeat(np.arange(len(hits)), hits.size // max(1, len(hits)))
    value, interval = accuracy_interval(hits.ravel(), groups)
    return {"share": value, "ci95": list(interval), "count": int(hits.size)}


def changed(before: Verdicts, after: Verdicts, labels: Sequence[str]) -> np.ndarray:
    """[n, ..., l]: whether the verdict on each label is another one after the edit than before."""
    return np.stack([before[name] != after[name] for name in labels], axis=-1)


def others(jury: Jury, *edited: str) -> list[str]:
    """The labels that an edit of `edited` should leave alone, of those that count."""
    return [name for name in jury.reliable if name not in edited]


def percent(one: Mapping[str, Any]) -> str:
    """A share and its interval as text."""
    low, high = one["ci95"]
    return f"{one['share']:.0%} ({low:.0%} to {high:.0%})"


def words(jury: Jury) -> str:
    """Who judges, and how well."""
    rows = ", ".join(f"{name} {row['accuracy']:.0%}" for name, row in jury.report.items())
    left_out = [name for name in jury.report if name not in jury.reliable]
    return (
        "The judge is a convolutional network trained on the pixels of the training split; on real test images it is "
        f"right in: {rows}."
        + (f" What it cannot read ({', '.join(left_out)}) is left out of the summaries." if left_out else "")
    )


# How it comes to be -------------------------------------------------------------------------------------


def summon(job: Job, judge_images: int) -> Jury:
    """The judge of these data, from the workdir if it is there, else trained on so many images and examined now."""
    folder = job.run.workdir / "edit" / "judge"
    training = Training(images=judge_images, seed=job.run.config.seed)
    path, made_from = folder / "results.json", _made_from(job, training)
    known = json.loads(path.read_text()) if path.is_file() else {}
    if known.get("made_from") == made_from:
        return Jury(judge=_loaded(job, folder / "judge.npz", training), report=known["labels"])
    job.say(f"training the judge of pictures on {training.images} real images")
    images, labels = _images(job, "train", MOST_TRAIN)[:2]
    judge = train_judge(images, labels, job.dataset.labels, training, job.say)
    report = examined(job, judge)
    _save(folder / "judge.npz", judge)
    write_json(path, {"labels": report, "made_from": made_from})
    return Jury(judge=judge, report=report)


def examined(job: Job, judge: Judge) -> dict[str, dict[str, Any]]:
    """label -> how often it is right on real images that it was not trained on (where there are such)."""
    split = "test" if "test" in job.dataset.splits else "train"
    images, labels, scenes = _images(job, split, MOST_TEST)
    found = judge(images)
    rows = {name: accuracy_interval(found[name] == truth, scenes) for name, truth in labels.items()}
    return {name: {"accuracy": value, "ci95": list(interval)} for name, (value, interval) in rows.items()}


def _images(job: Job, split: str, most: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Images of the size that is drawn, at most SIDE pixels, their labels and their scenes."""
    chosen, config = chosen_images(job, split, most), job.run.config
    stream = plain_stream(job.dataset, split, config, BATCH, chosen, whole=True, size=config.data.image_size)
    with stream:
        parts = [
            _piece(batch)
            for batch in shown(stream, f"{split} for the judge", -(-len(chosen) // BATCH), job.say)
        ]
    whole = jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)
    return whole["image"], whole["labels"], whole["index"] // job.dataset.views


def _piece(batch: Mapping[str, Any]) -> dict[str, Any]:
    valid, images = batch["valid"], batch["image"]
    if max(images.shape[1:3]) > SIDE:
        images = np.asarray(to_uint8(shrunk(images)))
    labels = {name: classes[valid] for name, classes in batch["labels"].items()}
    return {"image": images[valid], "labels": labels, "index": batch["index"][valid]}


def _made_from(job: Job, training: Training) -> str:
    c, limits = job.run.config.data, [MOST_TRAIN, MOST_TEST, SIDE]
    splits = [c.train_split, c.test_split]
    data = [job.dataset.manifest, c.image_size, c.channels, job.probe.seed, *splits, *limits]
    return digest([data, dataclasses.asdict(training)])


def _save(path: Path, judge: Judge) -> None:
    """The weights by name, whole or not at all, by process 0."""
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part_" + path.name)
        np.savez(part, **flatten_dict(judge.variables, sep="/"))
        part.replace(path)


def _loaded(job: Job, path: Path, training: Training) -> Judge:
    side, c = min(job.run.config.data.image_size, SIDE), job.run.config.data
    judge = untrained((side, side, c.channels), job.dataset.labels, training)
    with np.load(path) as file:
        return dataclasses.replace(judge, variables=unflatten_dict(dict(file), sep="/"))
