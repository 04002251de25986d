"""Where in a diffusion net, and at which noise, features are best: `experiments.probe --workdir=DIR --grid`.

Probes every pair of a layer and a noise level, all layers of a level from one forward pass over the images. Each is
judged on the held-out part of the training split, and the best of them answers test, once. --select=test takes the pair
that is best on the test split, as the paper's authors do (arXiv 2303.09769): such a number is no estimate of anything
new, and says so. Writes DIR/probe_grid/<step>/results.json:
    {"cells": [{"layer", "noise", "linear"}], "chosen": {"layer", "noise", "validation", "test"}, "select", ...}
where "linear" is an accuracy on what selects; of several labels the mean, beside each one's own in "labels".
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import DataError
from experiments import runs
from experiments.probe_exhibit import columns_of
from experiments.probing import Job, batches, chosen_images, settings_hash, write_json
from soda_jax.evaluation.features import Extractor
from soda_jax.evaluation.features import Table as TableOfFeatures
from soda_jax.evaluation.intervals import accuracy_interval
from soda_jax.evaluation.linear_probe import LinearProbe
from soda_jax.evaluation.scores import answer
from soda_jax.evaluation.stacked_probe import answer_all, choose_heads
from soda_jax.methods.ddae import DDAE
from soda_jax.parallel import processes
from soda_jax.report import exhibit
from soda_jax.report.exhibit import Exhibit, HeatMap, Table
from soda_jax.types import Tree

LEVELS = {"ddpm": (1, 11, 21), "edm": (3, 4, 5)}  # of the paper's authors
SELECTS = ("holdout", "test")
WORDS = {
    "holdout": "a held-out part of the training split; the best pair then answers test, once",
    "test": "the test split, which also reports: the protocol of the paper's authors, and no estimate for new images",
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is asked for."""

    levels: tuple[int, ...]
    layers: tuple[str, ...]
    select: str = "holdout"


def asked(job: Job, levels: Sequence[str], layers: Sequence[str], select: str) -> Grid:
    """The grid of a command line, where nothing given means the usual. ValueError for what the net does not have."""
    method = job.run.method
    if not isinstance(method, DDAE):
        raise ValueError(f"--grid is for runs of config.method='ddae', found {job.run.config.method!r}")
    if select not in SELECTS:
        raise ValueError(f"--select must be {' or '.join(SELECTS)}, found {select!r}")
    if job.probe.augment:
        raise DataError("--grid probes plain images: leave --config.probe.augment out")
    numbers = LEVELS[job.run.config.diffusion.framework] if not levels else tuple(map(int, levels))
    if wrong := [number for number in numbers if not 1 <= number <= method.levels]:
        raise ValueError(f"--levels: {wrong} are not within 1 to diffusion.steps = {method.levels}")
    known = taps(job, method)
    if wrong := [name for name in layers if name not in known]:
        raise ValueError(f"--layers: {', '.join(wrong)}: the net has {', '.join(known)}")
    usual = tuple(name for name in known if name.startswith(("out_", "block_")) or name == "middle")
    return Grid(levels=numbers, layers=tuple(layers) or usual, select=select)


def taps(job: Job, method: DDAE) -> list[str]:
    """Names of the net's maps, in order."""
    target = job.run.spec["target"]
    image = jnp.zeros((1, *target.shape[1:]), target.dtype)
    maps = jax.eval_shape(lambda v: method.maps(v, image, jnp.ones(1), None), job.run.abstract_variables())
    return sorted(maps, key=lambda name: [int(part) if part.isdigit() else part for part in name.split("_")])


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Features of all layers of the grid."""

    job: Job
    variables: Tree
    layers: tuple[str, ...]

    @cached_property
    def extractor(self) -> Extractor:
        """One program for all levels: the time is an argument."""
        method = self.job.run.method
        return Extractor(
            lambda told, images: method.layers(told["variables"], images, told["t"]), self.layers
        )

    def __call__(self, split: str, level: int) -> TableOfFeatures:
        """Of the images of a split that the probe's limits leave."""
        told = {"variables": self.variables, "t": np.asarray(level / self.job.run.method.levels, np.float32)}
        images = chosen_images(self.job, split, self.job.probe[f"max_{split}"])
        return self.extractor(told, batches(self.job, split, images), self.job.dataset.views)


def probe_grid(job: Job, step: int, variables: Tree, grid: Grid) -> dict[str, Any]:
    """All cells and the chosen one; levels that are there already, made from the same, are not probed again."""
    folder, read = folder_of(job, step), Reader(job=job, variables=variables, layers=grid.layers)
    origin = {
        "encoder": runs.fingerprint(variables),
        "settings": settings_hash(job),
        "layers": list(grid.layers),
    }
    cells = [
        cell
        for level in grid.levels
        for cell in kept_cells(job, folder, {**origin, "level": level}, read, grid)
    ]
    result = {
        "step": step,
        "images": step * job.run.config.train.batch,
        "select": grid.select,
        "selected_on": WORDS[grid.select],
        "draws": job.run.method.draws,
        "cells": cells,
        "chosen": answered(job, read, max(cells, key=lambda cell: cell["linear"])),
        "made_from": origin,
    }
    write_json(folder / "results.json", result)
    leave(job, step, grid, result)
    job.say(table_text(result))
    return result


def folder_of(job: Job, step: int) -> Path:
    """Where results go."""
    return job.run.workdir / "probe_grid" / str(step)


def kept_cells(
    job: Job, folder: Path, key: Mapping[str, Any], read: Reader, grid: Grid
) -> list[dict[str, Any]]:
    """Those of a level, from its file if it was made from the same."""
    level = key["level"]
    path = folder / f"level_{level}_{grid.select}.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("made_from") == key:
        job.say(f"level {level} is probed already: {path}")
        return found["cells"]
    job.say(f"level {level}: {len(grid.layers)} layers")
    train, test = read("train", level), read("test", level) if grid.select == "test" else None
    cells = level_cells(job, train, test, level, grid.layers)
    write_json(path, {"made_from": key, "cells": cells})
    return cells


def level_cells(
    job: Job,
    train: TableOfFeatures,
    test: TableOfFeatures | None,
    level: int,
    layers: Sequence[str],
) -> list[dict[str, Any]]:
    """A cell a layer; layers of one width are probed together."""
    labels = job.dataset.labels
    widths = {name: train.features[name].shape[1] for name in layers}
    right: dict[str, np.ndarray] = {}
    for width in sorted(set(widths.values())):
        names = [name for name in layers if widths[name] == width]
        right |= dict(zip(names, accuracies(train, test, names, labels, job.settings.linear), strict=True))
    return [
        {
            "layer": name,
            "noise": level,
            "linear": float(right[name].mean()),
            "labels": dict(zip(labels, map(float, right[name]), strict=True)),
        }
        for name in layers
    ]


def accuracies(
    train: TableOfFeatures,
    test: TableOfFeatures | None,
    names: Sequence[str],
    labels: Mapping[str, int],
    settings: LinearProbe,
) -> np.ndarray:
    """[layers, labels], on test if it is there, else on the held-out part of train."""
    x = np.stack([train.features[name] for name in names])
    y = np.stack([train.labels[label] for label in labels]).astype(np.int32)
    counts = tuple(labels.values())
    choice = choose_heads(x, y, counts, train.groups, settings)
    if test is None:
        return choice.holdout
    queries = np.stack([test.features[name] for name in names])
    truth = np.stack([test.labels[label] for label in labels])
    return (answer_all(x, y, counts, choice, queries, settings) == truth[None]).mean(-1)


def answered(job: Job, read: Reader, best: Mapping[str, Any]) -> dict[str, Any]:
    """The best pair's answers to the test split, and what it had on the held-out part."""
    one = dataclasses.replace(read, layers=(best["layer"],))
    train, test = (one(split, best["noise"]) for split in ("train", "test"))
    rows = {}
    for name, found in answer(train, test, best["layer"], job.dataset.labels, job.settings.linear).items():
        accuracy, interval = accuracy_interval(found.predicted == test.labels[name], test.groups)
        rows[name] = {"validation": found.holdout, "test": accuracy, "test_ci95": list(interval)}
    means = {key: float(np.mean([row[key] for row in rows.values()])) for key in ("validation", "test")}
    return {"layer": best["layer"], "noise": best["noise"], **means, "labels": rows}


def table_text(found: Mapping[str, Any]) -> str:
    """A row a layer, a column a noise level, in percent; and the chosen pair."""
    layers, levels, values = matrix(found)
    rows = [
        [name, *(f"{100 * value:.1f}" for value in row)] for name, row in zip(layers, values, strict=True)
    ]
    c = found["chosen"]
    return "\n".join(
        [
            *columns_of(
                [f"linear probe, % ({found['select']})", *(f"level {level}" for level in levels)], rows
            ),
            f"chosen: {c['layer']} at level {c['noise']}: {c['validation']:.1%} held out, {c['test']:.1%} on test",
            f"selected on {found['selected_on']}",
        ]
    )


def matrix(found: Mapping[str, Any]) -> tuple[list[str], list[int], list[list[float]]]:
    """Layers, levels, and the accuracies of each layer."""
    layers, levels = ([*dict.fromkeys(cell[key] for cell in found["cells"])] for key in ("layer", "noise"))
    by_pair = {(cell["layer"], cell["noise"]): cell["linear"] for cell in found["cells"]}
    return layers, levels, [[by_pair[layer, level] for level in levels] for layer in layers]


def leave(job: Job, step: int, grid: Grid, found: Mapping[str, Any]) -> None:
    """The section of the run's page. Process 0 writes it."""
    if not processes.is_main():
        return
    layers, levels, values = matrix(found)
    rows = [
        [name, *(f"{row[key]:.1%}" for key in ("validation", "test"))]
        for name, row in found["chosen"]["labels"].items()
    ]
    c, percent = found["chosen"], [[100 * value for value in row] for row in values]
    command = [
        "python",
        "-m",
        "experiments.probe",
        f"--workdir={job.run.workdir}",
        f"--step={step}",
        "--grid",
    ]
    command += [f"--levels={','.join(map(str, grid.levels))}", f"--layers={','.join(grid.layers)}"]
    exhibit.write(
        job.run.workdir / "probe_grid" / str(step),
        Exhibit(
            title="Where in the net the features are best",
            order=5,
            paragraphs=[
                f"Step {step}: {c['layer']} at noise level {c['noise']}.",
                f"Selected on {found['selected_on']}.",
            ],
            tables=[Table(head=["label", "held out", "test"], rows=rows)],
            heat_maps=[
                HeatMap(
                    title="Linear probe by layer and noise level, %",
                    rows=layers,
                    columns=[str(level) for level in levels],
                    values=percent,
                )
            ],
            command=shlex.join([*command, f"--select={grid.select}"]),
        ),
    )
