"""What every mode of editing works with: test images with their latents, a brush, the latents of the training split."""

import argparse
import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np

from experiments import build, pictures
from experiments.drawing import Draw, Encode, Paint, draw, numbered_noise
from experiments.editing.jury import Jury, summon
from experiments.probing import Job, batches, chosen_images, settings_of
from experiments.runs import Run
from soda_jax.editing.directions import Directions, principal
from soda_jax.evaluation.features import Extractor, Table
from soda_jax.types import Tree

OTHER_NOISE = 100_000  # added to the number of a noise: one that no row has
Rows = pictures.Rows


@dataclasses.dataclass(frozen=True)
class Studio:
    """A run, at a step, and the command line of `experiments.edit`; the rest is made when it is first asked for."""

    run: Run
    arguments: argparse.Namespace

    @cached_property
    def variables(self) -> Tree:
        """The averaged ones."""
        return self.run.ema_variables()

    @cached_property
    def job(self) -> Job:
        """How images are read and encoded, as the probe does it."""
        return Job(
            run=self.run, dataset=build.dataset(self.run.config), settings=settings_of(self.run.config)
        )

    @property
    def split(self) -> str:
        """Whose images are edited."""
        return pictures.split_of(self.job.dataset.splits)

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """`--images` of them, or all where there are fewer; of these the first `--count` are shown."""
        source = pictures.source_of(self.run)
        chosen = pictures.choose(source, self.arguments.images, self.arguments.seed)
        return [source[i] for i in chosen]

    @cached_property
    def plain(self) -> Rows:
        """Their first images as they are: source, target, and the camera; one source, however many training takes."""
        views = dataclasses.replace(build.views(self.run.config), sources=1)
        return pictures.stacked([views.plain_pair(example) for example in self.examples])

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Their true classes, by label."""
        names = self.job.dataset.labels
        return {name: np.array([e["labels"][name] for e in self.examples]) for name in names}

    @cached_property
    def _brush(self) -> tuple[Encode, Paint]:
        return draw(self.run.config, self.run.method, self.variables, self.arguments.seed)

    @cached_property
    def z(self) -> np.ndarray:
        """Of the examples, [n, s, d]."""
        return self._brush[0](self.plain["source"])

    @cached_property
    def jury(self) -> Jury | None:
        """Who says what a picture shows; None where the data have no labels."""
        return summon(self.job, self.arguments.judge_images) if self.job.dataset.labels else None

    def order(
        self,
        z: np.ndarray,
        rows: Sequence[int],
        *,
        start: np.ndarray | None = None,
        other_noise: bool = False,
    ) -> Draw:
        """Latents [r, m, s, d] to paint: row i has the camera and the noise of example rows[i].

        start: the images at t = 1 instead, [r, m, h, w, c]. other_noise: one that differs from the examples' own.
        """
        numbers = np.asarray(rows) + OTHER_NOISE * other_noise
        cameras = pictures.along_rows(pictures.cameras_of_rows(self.plain, rows), z.shape[1])
        noise = np.tile(numbers[:, None], (1, z.shape[1]))
        return Draw(z=np.asarray(z), noise=noise, cameras=cameras, start=start)

    def paint(self, orders: Sequence[Draw]) -> list[np.ndarray]:
        """uint8 [r, m, h, w, c] of each; painted together, in batches that they share."""
        return self._brush[1](orders)

    def noise(self, rows: Sequence[int]) -> jax.Array:
        """What `paint` starts from in these rows, [r, h, w, c]."""
        root, shape = jax.random.key(self.arguments.seed), self.plain["target"].shape[1:]
        return numbered_noise(root, np.asarray(rows), shape)

    @cached_property
    def training(self) -> Table:
        """z (flat) and labels of up to `--fit` training images."""
        images = chosen_images(self.job, "train", self.arguments.fit)
        extractor = Extractor(self.run.method.encode, ("z",))
        return extractor(self.variables, batches(self.job, "train", images), self.job.dataset.views)

    @property
    def training_z(self) -> np.ndarray:
        """[b, s, d]"""
        return self.training.features["z"].reshape(-1, *self.z.shape[1:])

    def directions(self, count: int) -> list[Directions]:
        """The leading ones of the whole z, then those of each section."""
        sections = [None, *range(self.run.method.sections)]
        return [principal(self.training_z, count, section) for section in sections]

    def couples(self) -> list[tuple[int, int]]:
        """Examples A and B: of those that are shown they differ in much, the others are as they come."""
        shown = min(2 * self.arguments.count, len(self.examples))
        rest = range(shown, len(self.examples) - 1, 2)
        return pictures.partners([e["labels"] for e in self.examples[:shown]]) + [(i, i + 1) for i in rest]

    def class_names(self, label: str) -> list[str]:
        """As the data set calls the classes of a label."""
        names, count = self.job.dataset.label_names.get(label), self.job.dataset.labels[label]
        return [str(name) for name in names] if names else [str(i) for i in range(count)]
