"""--mode=interpolate: from the z of A to the z of B, straight or along an arc, with one noise or with two."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.editing.jury import Verdicts, percent, share, words
from experiments.editing.mix import follows
from experiments.editing.outcome import Grid, Outcome
from experiments.editing.studio import Studio
from soda_jax.editing.interpolate import blend, lerp, slerp
from soda_jax.report.exhibit import Curves, Table

FRAMES = 7  # both ends among them
PATHS = ("lerp", "slerp", "lerp, noise too")
TITLES = [f"{i / (FRAMES - 1):.2f}" for i in range(FRAMES)]


def run(studio: Studio) -> Outcome:
    """All couples; the first are shown."""
    couples = studio.couples()
    firsts, seconds = map(list, zip(*couples, strict=True))
    z, start = paths(studio.z[firsts], studio.z[seconds], studio.noise(firsts), studio.noise(seconds))
    (drawn,) = studio.paint([studio.order(z, firsts, start=start)])
    drawn = drawn.reshape(len(couples), len(PATHS), FRAMES, *drawn.shape[2:])  # [c, p, f, h, w, c]
    measures, tables, curves = _measured(studio, drawn, couples) if studio.jury else ({}, (), ())
    return Outcome(
        title="Editing: interpolation",
        paragraphs=[
            "From the z of A to the z of B: lerp along the straight line, slerp along the arc between their "
            "directions, both with the noise and the camera of A; then the line again with the noise going from A's "
            "to B's as well, at variance 1 all the way."
        ],
        grids={"interpolate": _grid(studio, drawn, firsts, seconds)},
        measures=measures,
        tables=tables,
        curves=curves,
    )


def paths(
    z_a: np.ndarray, z_b: np.ndarray, noise_a: np.ndarray, noise_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """z [c, p * f, s, d] and noise [c, p * f, h, w, c] of every frame of every path of each couple."""
    z, noise = [], []
    for a, b, start, end in zip(*map(jnp.asarray, (z_a, z_b, noise_a, noise_b)), strict=True):
        line = lerp(a, b, FRAMES)
        z.append(jnp.concatenate([line, slerp(a, b, FRAMES), line]))
        still = jnp.broadcast_to(start, (2 * FRAMES, *start.shape))
        noise.append(jnp.concatenate([still, blend(start, end, FRAMES)]))
    return np.stack(z), np.stack(noise)


def _grid(studio: Studio, drawn: np.ndarray, firsts: Sequence[int], seconds: Sequence[int]) -> Grid:
    """A row for each path of the first couples."""
    n, images = min(studio.arguments.count, len(firsts)), studio.plain["target"]
    ends = [np.repeat(images[list(rows[:n])], len(PATHS), axis=0) for rows in (firsts, seconds)]
    frames = drawn[:n].reshape(-1, *drawn.shape[2:])
    columns = [("A", ends[0]), *((title, frames[:, i]) for i, title in enumerate(TITLES)), ("B", ends[1])]
    return Grid(
        columns=columns, caption="From the z of A to the z of B, three ways.", row_titles=[*PATHS] * n
    )


def _measured(
    studio: Studio, drawn: np.ndarray, couples: Sequence[tuple[int, int]]
) -> tuple[dict[str, Any], tuple[Table, ...], tuple[Curves, ...]]:
    jury, verdicts = studio.jury, studio.jury(drawn)
    found = {}
    for i, path in enumerate(PATHS):
        seen = {name: classes[:, i] for name, classes in verdicts.items()}
        found[path] = summary(seen, couples, studio.labels, jury.reliable)
    rows = [
        [path, *(percent(one[key]) for key in ("start_as_a", "end_as_b", "neither")), _kept(one)]
        for path, one in found.items()
    ]
    head = ["path", "first frame judged as A", "last frame as B", "in between as neither", "drifted"]
    caption = f"Over factors in which A and B differ; drifted: those in which they agree. {words(jury)}"
    table = Table(head=head, rows=rows, caption=caption)
    return {"paths": found, "judge": dict(jury.report)}, (table,), tuple(map(_curve, found, found.values()))


def summary(
    seen: Verdicts, couples: Sequence[tuple[int, int]], truth: Verdicts, labels: Sequence[str]
) -> Mapping[str, Any]:
    """What the judge sees along one path, [couples, frames] by label."""
    by_label = [follows(seen, couples, truth, name) for name in labels]
    as_a, as_b, lost = (np.concatenate([one[key] for one in by_label]) for key in ("as_a", "as_b", "lost"))
    neither = ~(as_a | as_b)
    return {
        "as_a": as_a.mean(0).tolist(),
        "as_b": as_b.mean(0).tolist(),
        "start_as_a": share(as_a[:, :1]),
        "end_as_b": share(as_b[:, -1:]),
        "neither": share(neither[:, 1:-1]),
        "drift": share(lost) if lost.size else None,
    }


def _kept(one: Mapping[str, Any]) -> str:
    return percent(one["drift"]) if one["drift"] else "-"


def _curve(path: str, one: Mapping[str, Any]) -> Curves:
    along = [i / (FRAMES - 1) for i in range(FRAMES)]
    series = {"judged as A": (along, one["as_a"]), "judged as B": (along, one["as_b"])}
    return Curves(title=f"Factors in which A and B differ, {path}", x="from A to B", series=series)
