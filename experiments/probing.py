"""What a probe of a run is made of: which images, their features, the scores of these."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from data.batches import Batches
from data.errors import DataError
from data.pipeline import evaluation_batches
from data.sources import DataSet
from data.views import UNTOUCHED
from experiments import build, runs
from experiments.runs import Run
from soda_jax.evaluation.features import Extractor, Table
from soda_jax.evaluation.linear_probe import LinearProbe
from soda_jax.evaluation.scores import Scores, Settings, measure
from soda_jax.parallel import processes
from soda_jax.types import Batch, Tree

FEATURES = ("z", "pooled")
LINE_EVERY = 20.0  # seconds between lines of progress where there is no terminal
SPLITS = ("train", "test")

Say = Callable[[str], None]


def print_once(text: str) -> None:
    """A line from process 0."""
    if processes.is_main():
        print(text, flush=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A run, and what it is probed with."""

    run: Run
    dataset: DataSet
    settings: Settings
    tasks: tuple[str, ...] = ("linear", "knn")
    say: Say = print_once

    @property
    def probe(self) -> ConfigDict:
        """config.probe."""
        return self.run.config.probe

    @cached_property
    def encoder(self) -> Extractor:
        """Of z and pooled features; compiled once, whatever the variables."""
        return Extractor(self.run.method.encode, FEATURES)

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.run.workdir / "probe"


def prepare(run: Run, say: Say = print_once) -> Job:
    """Whatever is wrong with the config or the data is found here, before anything is computed.

    Raises ValueError (or DataError) for values out of range, data without labels, a missing test split.
    """
    settings, dataset = settings_of(run.config), build.dataset(run.config)
    if run.config.probe.batch % processes.process_count():
        raise ValueError(
            f"config.probe.batch={run.config.probe.batch} must be a multiple of the "
            f"{processes.process_count()} processes"
        )
    dataset.split("test")
    if not dataset.labels:
        raise DataError(
            f"data set {dataset.name!r} has no labels, so there is nothing to probe: prepare it from folders "
            "train/<class>/ and test/<class>/, or train on a labelled data set"
        )
    return Job(run=run, dataset=dataset, settings=settings, say=say)


def settings_of(config: ConfigDict) -> Settings:
    """config.probe as an object."""
    c = config.probe
    for name in ("batch", "knn_k"):
        if c[name] < 1:
            raise ValueError(f"config.probe.{name} must be 1 or more, found {c[name]}")
    if c.augment and config.data.pair in UNTOUCHED:
        raise ValueError(
            f"config.probe.augment=True: with config.data.pair={config.data.pair!r} views are not altered, so copies "
            "of the training images would be the images themselves; leave it out"
        )
    for name in ("max_train", "max_test"):
        if c[name] < 0:
            raise ValueError(f"config.probe.{name} must be 0 (all) or more, found {c[name]}")
    names = ("learning_rates", "weight_decays", "images", "holdout", "seed")
    return Settings(linear=LinearProbe(**{name: c[name] for name in names}), knn_k=c.knn_k)


# Features -----------------------------------------------------------------------------------------------


def chosen_images(job: Job, split: str, limit: int) -> np.ndarray:
    """Numbers of the images of a split that are used, ascending; the same ones every time."""
    count = len(job.dataset.split(split)) * job.dataset.views
    if not 0 < limit < count:
        return np.arange(count)
    rng = np.random.default_rng([job.probe.seed, SPLITS.index(split)])
    return np.sort(rng.choice(count, limit, replace=False))


def plain_stream(
    dataset: DataSet,
    split: str,
    config: ConfigDict,
    batch: int,
    images: np.ndarray | None = None,
    whole: bool = False,
    size: int = 0,
    **more: Any,
) -> Batches:
    """Images of a split (None: all), as the encoder of this config sees them, read as the config says.

    Of several processes each gets its rows of every batch; whole: all of them. size: another one than the source's.
    more: of `evaluation_batches`.
    """
    c, sharing = config.data, 1 if whole else processes.process_count()
    return evaluation_batches(
        dataset,
        split,
        batch=batch,
        image_size=size or c.source_size,
        channels=c.channels,
        indices=images,
        process_index=processes.process_index() if sharing > 1 else 0,
        process_count=sharing,
        threads=c.threads,
        prefetch=c.prefetch,
        **more,
    )


def batches(
    job: Job, split: str, images: np.ndarray, augment: bool = False, whole: bool = False
) -> Iterator[Batch]:
    """These images of a split, as the encoder sees them; with progress.

    Of several processes each gets its rows of every batch; whole: all of them.
    """
    more = {"augment": build.views(job.run.config) if augment else None, "seed": job.probe.seed}
    stream = plain_stream(job.dataset, split, job.run.config, job.probe.batch, images, whole, **more)
    what = f"encoding {split}{', augmented' if augment else ''}"
    with stream:
        yield from shown(stream, what, math.ceil(len(images) / job.probe.batch), job.say)


def shown(items: Iterable, what: str, total: int, say: Say, unit: str = "batches") -> Iterator:
    """A bar on a terminal; elsewhere a line now and then."""
    with tqdm(
        items,
        desc=what,
        total=total,
        unit=f" {unit}",
        leave=False,
        disable=None if processes.is_main() else True,
    ) as bar:
        last = time.monotonic()
        for number, item in enumerate(bar):
            if bar.disable and time.monotonic() - last > LINE_EVERY:
                last = time.monotonic()
                say(f"  {what}: {number} of {total} {unit}")
            yield item


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """One encoder's features of everything that is probed."""

    train: Table
    test: Table
    augmented: Table | None


def tables(
    job: Job,
    extractor: Extractor,
    variables: Tree,
    images: tuple[np.ndarray, np.ndarray] | None = None,
    augment: bool = True,
) -> Tables:
    """One pass over train and over test, and one over train with augmentation if the config asks for it, too.

    images: numbers of those of train and of test (default: those that the config's limits leave).
    """
    train, test = images or (
        chosen_images(job, split, job.probe[f"max_{split}"]) for split in ("train", "test")
    )
    views = job.dataset.views
    augmented = batches(job, "train", train, True) if augment and job.probe.augment else None
    return Tables(
        train=extractor(variables, batches(job, "train", train), views),
        test=extractor(variables, batches(job, "test", test), views),
        augmented=extractor(variables, augmented, views) if augmented else None,
    )


def measured(job: Job, found: Tables, feature: str, name: str) -> dict[str, Scores]:
    """label -> scores of one feature; says how long it took."""
    start = time.monotonic()
    labels = job.dataset.labels
    scores = measure(found.train, found.test, feature, labels, job.settings, found.augmented)
    width, heads = found.train.features[feature].shape[1], len(job.settings.linear.grid())
    seconds = time.monotonic() - start
    job.say(
        f"  {name}: {heads} heads and k-NN for {len(labels)} label(s) on {width} features, {seconds:.1f} s"
    )
    return scores


def by_label(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, dict[str, Scores]]:
    """feature -> label -> scores, turned into label -> feature -> scores."""
    labels = next(iter(scores.values()))
    return {label: {feature: rows[label] for feature, rows in scores.items()} for label in labels}


def settings_hash(job: Job, *more: str) -> str:
    """Of the config's keys and the data that a probe depends on, and of `more` groups of keys."""
    own = (
        ("ddae", "diffusion") if job.run.config.method == "ddae" else ()
    )  # which its features depend on as well
    kept = runs.decisive(job.run.config, ("seed", "method", "model", "data", "probe", *own, *more))
    return runs.digest([kept, job.dataset.manifest])


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, by process 0; all processes wait for it."""
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(value, indent=2) + "\n")
        part.replace(path)
    processes.any_process(False)  # whoever looks for it next, in whichever process, finds it
