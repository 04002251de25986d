"""--mode=directions: the principal components of z, of the whole and of each section, each swept in pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.drawing import Draw
from experiments.editing.jury import changed, percent, share, words
from experiments.editing.outcome import Grid, Outcome
from experiments.editing.studio import Studio
from soda_jax.editing.directions import Directions, correlation_ratio, section_variances, sweep
from soda_jax.report.exhibit import HeatMap, Table

LEADING = 6  # directions of the whole z that are swept, and the first of each section
AMOUNTS = np.array([-3.0, -1.5, 0.0, 1.5, 3.0], np.float32)  # standard deviations
SHOWN = 2  # examples beside each other


def run(studio: Studio) -> Outcome:
    """The directions are those of the training split, the pictures those of the test split."""
    whole, *each = studio.directions(LEADING)
    leading = len(whole.shares)
    names = [f"z, {i + 1}" for i in range(leading)] + [f"section {i}" for i in range(len(each))]
    lengths = np.concatenate([_lengths(whole), *(_lengths(one)[:1] for one in each)])  # [m, s, d]
    shares = [*whole.shares.tolist(), *(float(one.shares[0]) for one in each)]
    frames, ends, redrawn = _painted(studio, lengths)
    variances = section_variances(studio.training_z).tolist()
    measures = {"directions": names, "shares": shares, "section_variances": variances}
    parts: tuple = ((), ())
    if studio.jury:
        found = _measured(studio, ends, redrawn, names, [whole, *each])
        measures |= found
        parts = _shown(studio, names, shares, found)
    return Outcome(
        title="Editing: directions found without labels",
        paragraphs=[
            "Principal components of the z of training images: of the whole z, and the first one of each section. "
            "Each row moves the z of test images along one of them, in standard deviations, with noise and camera "
            "held. The share of variance is that of z, or of the section. Of the variance of z the sections hold: "
            + ", ".join(f"{i}: {value:.0%}" for i, value in enumerate(variances))
            + "."
        ],
        grids={
            "whole": _grid(frames[:leading], names[:leading], "The leading directions of the whole z."),
            "sections": _grid(frames[leading:], names[leading:], "The first direction of each section of z."),
        },
        measures=measures,
        tables=parts[0],
        heat_maps=parts[1],
    )


def _lengths(found: Directions) -> np.ndarray:
    """[n, s, d]: one standard deviation along each."""
    return found.vectors * found.deviations[:, None, None]


def _painted(studio: Studio, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frames of the first examples [m, r, a, ...], both ends of all [m, n, 2, ...], all as they are [n, 1, ...]."""
    rows = list(range(len(studio.examples)))
    first, all_of_them = rows[:SHOWN], rows
    orders = [
        _order(studio, lengths, first, AMOUNTS),
        _order(studio, lengths, all_of_them, AMOUNTS[[0, -1]]),
        studio.order(studio.z[:, None], rows),
    ]
    frames, ends, redrawn = studio.paint(orders)
    sweeps = [x.reshape(len(lengths), -1, *x.shape[1:]) for x in (frames, ends)]
    return (*sweeps, redrawn)


def _order(studio: Studio, lengths: np.ndarray, rows: Sequence[int], amounts: np.ndarray) -> Draw:
    """Every direction of every example, [m * r, a]."""
    swept = np.concatenate([sweep(studio.z[list(rows)], length, amounts) for length in lengths])
    return studio.order(swept, [*rows] * len(lengths))


def _grid(frames: np.ndarray, names: Sequence[str], caption: str) -> Grid:
    titles = [f"{amount:+.1f}" for amount in AMOUNTS]
    columns = [(title, frames[:, r, i]) for r in range(frames.shape[1]) for i, title in enumerate(titles)]
    return Grid(columns=columns, caption=f"{caption} Standard deviations above.", row_titles=names)


def _measured(
    studio: Studio, ends: np.ndarray, redrawn: np.ndarray, names: Sequence[str], found: list[Directions]
) -> dict[str, Any]:
    """eta^2 of each direction with each factor, and how often the judge sees each factor change at either end."""
    scores = [found[0].scores(studio.training_z), *(d.scores(studio.training_z)[:, :1] for d in found[1:])]
    scores = np.concatenate(scores, axis=1)
    labels = list(studio.jury.report)
    ratios = {name: correlation_ratio(scores, studio.training.labels[name]).tolist() for name in labels}
    before = {name: classes[None] for name, classes in studio.jury(redrawn).items()}  # [1, n, 1]
    moved = changed(before, studio.jury(ends), labels)  # [m, n, 2, l]
    return {
        "eta_squared": ratios,
        "changed": {name: moved[..., i].mean((1, 2)).tolist() for i, name in enumerate(labels)},
        "edits": {name: _edit(studio, ratios, moved[i], i) for i, name in enumerate(names)},
        "judge": dict(studio.jury.report),
    }


def _edit(studio: Studio, ratios: dict[str, list[float]], moved: np.ndarray, number: int) -> dict[str, Any]:
    """Of one direction: the factor it goes with best, how often that changes, and how often the others do."""
    labels, counted = list(ratios), studio.jury.reliable
    best = max(counted, key=lambda name: ratios[name][number])
    rest = [labels.index(name) for name in counted if name != best]
    target = share(moved[..., labels.index(best)])
    drift = share(moved[..., rest]) if rest else None
    return {"factor": best, "eta_squared": ratios[best][number], "changed": target, "drift": drift}


def _shown(
    studio: Studio, names: Sequence[str], shares: Sequence[float], found: dict[str, Any]
) -> tuple[tuple[Table, ...], tuple[HeatMap, ...]]:
    rows = []
    for name, part in zip(names, shares, strict=True):
        edit = found["edits"][name]
        drift = percent(edit["drift"]) if edit["drift"] else "-"
        rows.append(
            [
                name,
                f"{part:.1%}",
                edit["factor"],
                f"{edit['eta_squared']:.2f}",
                percent(edit["changed"]),
                drift,
            ]
        )
    head = ["direction", "variance", "goes with", "eta²", "judged changed at ±3", "other factors changed"]
    labels = list(found["eta_squared"])
    maps = {"eta_squared": "Share of each score's variance that a factor explains (eta²)"}
    maps["changed"] = "How often the judge sees a factor change, ±3 standard deviations"
    return (Table(head=head, rows=rows, caption=words(studio.jury)),), tuple(
        HeatMap(
            title=title, rows=names, columns=labels, values=_turned([found[key][name] for name in labels])
        )
        for key, title in maps.items()
    )


def _turned(columns: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(row) for row in zip(*columns, strict=True)]
