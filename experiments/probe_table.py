"""The table that a probe prints."""

from collections.abc import Mapping
from typing import Any

from soda_jax.evaluation.scores import Scores

COLUMNS = ("z", "pooled", "untrained", "pixels")


def table_text(found: Mapping[str, Any]) -> str:
    """A row a label: linear accuracy [95% interval] and k-NN accuracy of each kind of feature, in percent."""
    width = max(len("label"), *map(len, found["labels"]))
    head = f"{'label':{width}}  chance" + "".join(f"  {name:<25}" for name in COLUMNS)
    lines = [
        f"step {found['step']}: test accuracy in % ({found['sizes']['test']:,} images), linear probe "
        f"[95% interval] and k-NN (k = {found['knn_k']})",
        head.rstrip(),
    ]
    for label, rows in found["labels"].items():
        cells = "".join(f"  {cell(rows[name]):<25}" for name in COLUMNS)
        lines.append(f"{label:{width}}  {found['chance'][label]:6.1%}{cells}".rstrip())
    return "\n".join([*lines, footnote(found)])


def cell(scores: Scores) -> str:
    """71.3 [69.9, 72.7] 65.1"""
    low, high = scores["linear_ci95"]
    return f"{scores['linear'] * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}] {scores['knn'] * 100:.1f}"


def footnote(found: Mapping[str, Any]) -> str:
    """What the baselines are."""
    kinds = found["untrained_features"]
    which = ", ".join(f"{label} {kind}" for label, kind in kinds.items())
    if len(set(kinds.values())) == 1:
        which = next(iter(kinds.values()))
    side = found["pixels_side"]
    statistics = found["untrained_statistics"]
    return (
        f"untrained: z or pooled features, whichever did better on held-out training images ({which}; k-NN: on\n"
        f"  test), with {statistics} BatchNorm statistics; pixels: {side} x {side}; chance: the commonest class"
    )
