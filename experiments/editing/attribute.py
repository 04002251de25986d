"""--mode=attribute: z moved until a linear detector sees another class, along its normal or with the data; sums."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.editing.jury import Verdicts, changed, others, percent, share, words
from experiments.editing.outcome import Grid, Outcome
from experiments.editing.studio import Studio
from soda_jax.editing.attributes import Detector, along_data, arithmetic
from soda_jax.evaluation.linear_probe import LinearProbe
from soda_jax.evaluation.one_vs_rest import one_vs_rest
from soda_jax.report.exhibit import Curves, Table

# Wanted log-odds, in units of what the class's own training images have on average.
STRENGTHS = (1.0, 2.0, 4.0)
SHOWN = 2.0  # of them
WAYS = {"normal": "along the normal", "data": "with the data"}
FIT = LinearProbe(learning_rates=(0.03,), weight_decays=(1e-3,), images=200_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Class:
    """One class of a label: what detects it, what its own images score, where they lie, and the ways to move."""

    detector: Detector
    typical: float  # mean log-odds of its training images
    mean: np.ndarray  # of their z, [s, d]
    along: Mapping[str, np.ndarray]  # way -> [s, d]


def run(studio: Studio) -> Outcome:
    """Every label, or the one that `--label` names."""
    labels = chosen(studio)
    plans = [plan(studio, label) for label in labels]
    before, seen, other, grids = painted(studio, plans)
    found = {
        one.label: measured(studio, one, before, verdicts, other)
        for one, verdicts in zip(plans, seen, strict=True)
    }
    return Outcome(
        title="Editing: attributes",
        paragraphs=[
            "For every class a linear detector is fitted on the z of training images, this class against the others. z "
            "of a test image is then moved until the detector's log-odds are those that images of the wanted class "
            "have on average (strength 1): along the detector's normal, or with the data, along the covariance of z "
            "times the normal. A - B + C adds to C what sets A, of the wanted class, apart from B, which is of C's "
            "class; with class means instead of single images it is the difference of means. Noise and camera stay.",
            "Accuracy: how often the judge sees the wanted class. Drift: how often it sees another factor change "
            "against the drawing that was not edited; other noise alone changes as many as the last rows say.",
        ],
        grids={f"attribute_{label}": grid for label, grid in zip(labels, grids, strict=True)},
        measures={"labels": found, "judge": dict(studio.jury.report)},
        tables=[_table(studio, found)],
        curves=[_curves(label, measures) for label, measures in found.items()],
    )


def chosen(studio: Studio) -> list[str]:
    """The labels to edit. ValueError where there are none, or not the one that was asked for."""
    known, asked = list(studio.job.dataset.labels), studio.arguments.label
    if not known:
        raise ValueError(
            f"--mode={studio.arguments.mode} needs labels, and data set {studio.job.dataset.name!r} has none: "
            "try --mode=directions, which needs none"
        )
    if asked and asked not in known:
        raise ValueError(f"--label={asked}: the data set has {', '.join(known)}")
    return [asked] if asked else known


def classes(studio: Studio, label: str) -> list[Class]:
    """Of a label, from the training split. ValueError where a class has no image among those looked at."""
    z, y, count = studio.training_z, studio.training.labels[label], studio.job.dataset.labels[label]
    missing = [i for i in range(count) if not np.any(y == i)]
    if missing:
        raise ValueError(
            f"--fit={studio.arguments.fit}: none of these training images is of class {missing[0]} of {label}; raise it"
        )
    weights, biases = one_vs_rest(studio.training.features["z"], y, count, FIT)
    return [
        class_of(z, z[y == i], Detector(weight=w.reshape(z.shape[1:]), bias=float(b)))
        for i, (w, b) in enumerate(zip(weights, biases, strict=True))
    ]


def class_of(z: np.ndarray, own: np.ndarray, detector: Detector) -> Class:
    """z: of all training images; own: of those of the class."""
    return Class(
        detector=detector,
        typical=float(detector.logit(own).mean()),
        mean=own.mean(0),
        along={"normal": detector.weight, "data": along_data(detector.weight, z)},
    )


def wanted_classes(truth: np.ndarray, count: int) -> np.ndarray:
    """For each image a class that it does not have, all of them equally often."""
    return (truth + 1 + np.arange(len(truth)) % max(1, count - 1)) % count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be painted for one label."""

    label: str
    wanted: np.ndarray  # class that each image is moved to, [n]
    edits: Mapping[str, np.ndarray]  # name -> z of each image, [n, s, d]
    shown: np.ndarray  # of the first images, z moved to every class, [r, k, s, d]


def plan(studio: Studio, label: str) -> Plan:
    """All edits of one label."""
    known, truth = classes(studio, label), studio.labels[label]
    wanted, first = wanted_classes(truth, len(known)), studio.z[: studio.arguments.count]
    return Plan(
        label=label,
        wanted=wanted,
        edits=edited(studio.z, wanted, known) | sums(studio, label, wanted, known),
        shown=np.stack([move(first, one, SHOWN, "data") for one in known], axis=1),
    )


def painted(studio: Studio, plans: Sequence[Plan]) -> tuple[Verdicts, list[Verdicts], Verdicts, list[Grid]]:
    """Verdicts on drawings that were not edited [n, 1], on each plan's [n, e], on those with other noise; grids."""
    rows, z = list(range(len(studio.examples))), studio.z[:, None]
    orders = [studio.order(z, rows), studio.order(z, rows, other_noise=True)]
    orders += [studio.order(np.stack(list(one.edits.values()), axis=1), rows) for one in plans]
    orders += [studio.order(one.shown, rows[: len(one.shown)]) for one in plans]
    redrawn, other, *rest = studio.paint(orders)
    seen = [studio.jury(images) for images in rest[: len(plans)]]
    grids = [
        _grid(studio, one.label, redrawn[:, 0], images)
        for one, images in zip(plans, rest[len(plans) :], strict=True)
    ]
    return studio.jury(redrawn), seen, studio.jury(other), grids


def measured(studio: Studio, one: Plan, before: Verdicts, seen: Verdicts, other: Verdicts) -> dict[str, Any]:
    """Scores by edit; before and other: [n, 1] by label, seen: [n, e]."""
    rest = others(studio.jury, one.label)
    found: dict[str, Any] = {}
    for i, name in enumerate(one.edits):
        after = {label: verdicts[:, i : i + 1] for label, verdicts in seen.items()}
        found[name] = scores(before, after, one.label, one.wanted[:, None], rest)
    truth = studio.labels[one.label]
    found["redrawn"] = {"accuracy": share(before[one.label][:, 0] == truth)}
    found["other noise"] = {"drift": share(changed(before, other, rest)) if rest else None}
    return found


def scores(
    before: Verdicts, after: Verdicts, label: str, wanted: np.ndarray, rest: Sequence[str]
) -> dict[str, Any]:
    """How often the wanted class is seen, and how often one of the other factors is seen otherwise than before."""
    hits = after[label] == wanted
    return {"accuracy": share(hits), "drift": share(changed(before, after, rest)) if rest else None}


def edited(z: np.ndarray, wanted: np.ndarray, known: Sequence[Class]) -> dict[str, np.ndarray]:
    """ "normal x 1", ... -> z of each image moved to its wanted class, [n, s, d]."""
    found = {}
    for way in WAYS:
        for strength in STRENGTHS:
            moved = [move(z[i : i + 1], known[k], strength, way) for i, k in enumerate(wanted)]
            found[f"{way} x {strength:g}"] = np.concatenate(moved)
    return found


def move(z: np.ndarray, to: Class, strength: float, way: str) -> np.ndarray:
    """z [b, s, d] with the log-odds that images of the class have on average, times the strength."""
    return to.detector.moved(z, strength * to.typical, to.along[way])


def sums(studio: Studio, label: str, wanted: np.ndarray, known: Sequence[Class]) -> dict[str, np.ndarray]:
    """A - B + C for each image C: with single training images of a kind, and with the means of the classes."""
    truth, table = studio.labels[label], studio.training
    a, b = partners_of(table.labels, label, studio.labels, wanted, studio.arguments.seed)
    z, means = studio.training_z, np.stack([one.mean for one in known])
    return {
        "A - B + C": arithmetic(z[a], z[b], studio.z),
        "means A - B + C": arithmetic(means[wanted], means[truth], studio.z),
    }


def partners_of(
    labels: Verdicts, label: str, truth: Verdicts, wanted: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each image training images A of the wanted class and B of its own, alike in most of the other factors."""
    rng = np.random.default_rng(seed)
    rest = [name for name in labels if name != label]
    first, second = [], []
    for own, target in zip(truth[label], wanted, strict=True):
        b = int(rng.choice(np.flatnonzero(labels[label] == own)))
        candidates = np.flatnonzero(labels[label] == target)
        alike = sum((labels[name][candidates] == labels[name][b]).astype(int) for name in rest)
        first.append(int(candidates[np.argmax(alike)]) if rest else int(candidates[0]))
        second.append(b)
    return np.array(first), np.array(second)


# What is shown ------------------------------------------------------------------------------------------


def _grid(studio: Studio, label: str, redrawn: np.ndarray, moved: np.ndarray) -> Grid:
    """Images, their redraws, and every class [r, k, h, w, c]."""
    n = len(moved)
    columns = [("image", studio.plain["target"][:n]), ("its z", redrawn[:n])]
    columns += [(name[:9], moved[:, i]) for i, name in enumerate(studio.class_names(label))]
    return Grid(
        columns=columns,
        caption=f"{label}: drawn from z, and from z moved with the data to each class, strength {SHOWN:g}.",
    )


def _table(studio: Studio, found: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each edit of each label, at the strength that is shown."""
    kept = [f"{way} x {SHOWN:g}" for way in WAYS] + ["A - B + C", "means A - B + C", "redrawn", "other noise"]
    rows = [
        [label, edit, *(_text(measures[edit].get(key)) for key in ("accuracy", "drift"))]
        for label, measures in found.items()
        for edit in kept
    ]
    caption = f"redrawn: how often the drawing that was not edited shows the true class. {words(studio.jury)}"
    return Table(head=["label", "edit", "attribute accuracy", "identity drift"], rows=rows, caption=caption)


def _text(one: Mapping[str, Any] | None) -> str:
    return percent(one) if one else "-"


def _curves(label: str, measures: Mapping[str, Any]) -> Curves:
    series = {
        f"{key}, {WAYS[way]}": (
            list(STRENGTHS),
            [(measures[f"{way} x {s:g}"][key] or {"share": None})["share"] for s in STRENGTHS],
        )
        for way in WAYS
        for key in ("accuracy", "drift")
    }
    return Curves(title=f"{label}: accuracy and drift", x="strength", series=series)
