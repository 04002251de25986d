"""What is known of one run, as plain values, and the readings of it that the page shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soda_jax.report.exhibit import Found

Row = Mapping[
    str, Any
]  # one line of metrics: at least step, images, loss, images_per_second in training lines
Scores = Mapping[str, Any]  # {"linear": accuracy, "linear_ci95": [low, high], "knn": accuracy}, in 0..1

FEATURES = ("z", "pooled", "untrained", "pixels")  # of a probe, in the order of the page's colours
FEATURE_NAMES = {
    "z": "z",
    "pooled": "pooled features",
    "untrained": "untrained encoder",
    "pixels": "raw pixels",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG and what it was made with (step, seed, sampler) in words."""

    png: bytes
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything the page is made from. Only the config has to be there; a run may be young."""

    name: str
    config: Mapping[str, Any]
    default: Mapping[str, Any] = field(default_factory=dict)  # the config that differences are told against
    metrics: Sequence[Row] = ()
    saved: Row = field(default_factory=dict)  # images and seconds of the newest checkpoint
    probes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # step -> results
    pictures: Mapping[str, Picture] = field(default_factory=dict)  # views, interpolation, sections
    history: Mapping[str, Picture] = field(default_factory=dict)  # pictures made while training, oldest first
    classes: Mapping[str, int] = field(default_factory=dict)  # label -> number of classes
    sizes: Mapping[str, int] = field(default_factory=dict)  # split -> examples
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    exhibits: Sequence[Found] = ()  # what other jobs left for the page, in its order


def column(rows: Sequence[Row], name: str, x: str = "images") -> tuple[list[float], list[float]]:
    """The rows that have both numbers, as (x, y)."""
    pairs = [(row[x], row[name]) for row in rows if _is_number(row.get(x)) and _is_number(row.get(name))]
    return [float(a) for a, _ in pairs], [float(b) for _, b in pairs]


def last(rows: Sequence[Row], name: str) -> float | None:
    """The newest finite value, None where there is none."""
    values = [v for v in column(rows, name)[1] if math.isfinite(v)]
    return values[-1] if values else None


def monitor_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The readings of the latent monitor, under its own names, each with `images`.

    The names may carry a prefix (`monitor/use`, ...): whatever stands before `effective_rank`.
    """
    found = []
    for row in rows:
        mark = next((key for key in row if key.endswith("effective_rank")), None)
        if mark is not None and row[mark] is not None:  # a reading that was not finite is no reading
            prefix = mark.removesuffix("effective_rank")
            values = {key.removeprefix(prefix): v for key, v in row.items() if key.startswith(prefix)}
            found.append({**values, "step": row.get("step"), "images": row.get("images")})
    return found


def gains(reading: Row) -> tuple[list[str], list[float]]:
    """(section, gain) of one reading of the monitor, in the order of the sections."""
    names = sorted(
        (key for key in reading if key.startswith("gain/")), key=lambda key: int(key.split("/")[1])
    )
    return [f"section {int(key.split('/')[1])}" for key in names], [float(reading[key]) for key in names]


def newest_probe(record: RunRecord) -> Mapping[str, Any] | None:
    return record.probes[max(record.probes)] if record.probes else None


def features_of(probe: Mapping[str, Any]) -> list[str]:
    """Of the four, those that every label of this probe has."""
    return [name for name in FEATURES if all(name in scores for scores in probe["labels"].values())]


def interval(scores: Scores) -> tuple[float, float]:
    """The 95% interval of the linear probe; the value itself where none was given."""
    low, high = scores.get("linear_ci95") or (scores["linear"], scores["linear"])
    return float(low), float(high)


def compare(label: Mapping[str, Scores], one: str, other: str) -> int:
    """+1 where `one` beats `other` and the intervals do not touch, -1 where it loses, else 0."""
    (low, high), (other_low, other_high) = interval(label[one]), interval(label[other])
    return int(low > other_high) - int(high < other_low)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key, default, value) of every key that differs; a key that only one of the two has counts."""
    ours, theirs = flatten(config), flatten(default)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    pairs = [(key, _show(theirs, key), _show(ours, key)) for key in keys]
    return [row for row in pairs if row[1] != row[2]]


def _show(flat: Mapping[str, Any], key: str) -> str:
    value = flat.get(key, "(none)")
    return repr(list(value)) if isinstance(value, tuple | list) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
