"""--mode=mix: coarse, middle and fine sections of z from different images, A told by B at one depth after another."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.editing.jury import Jury, Verdicts, percent, share, words
from experiments.editing.outcome import Grid, Outcome
from experiments.editing.studio import Studio
from soda_jax.editing.sections import depths, mix
from soda_jax.report.exhibit import HeatMap, Table


def run(studio: Studio) -> Outcome:
    """All couples; the first are shown."""
    parts = depths(studio.run.method.sections)
    couples = studio.couples()
    firsts, seconds = map(list, zip(*couples, strict=True))
    z = np.stack(mixtures(studio.z[firsts], studio.z[seconds], parts), axis=1)
    (drawn,) = studio.paint([studio.order(z, firsts)])
    n, images = studio.arguments.count, studio.plain["target"]
    titles = ["z of A", *(f"{name} of B" for name in parts), "z of B"]
    columns = [("A", images[firsts][:n]), ("B", images[seconds][:n])]
    columns += [(title, drawn[:n, i]) for i, title in enumerate(titles)]
    sections = ", ".join(f"{name}: {_numbers(numbers)}" for name, numbers in parts.items())
    measures, tables, maps = _measured(studio, drawn, couples, list(parts)) if studio.jury else ({}, (), ())
    return Outcome(
        title="Editing: sections mixed",
        paragraphs=[
            "z of A with the sections of one depth of the denoiser taken from B, all with A's noise and camera. "
            f"Sections {sections}; the coarse ones steer the middle of the denoiser, the fine ones its outermost "
            "layers (of a DiT: its last and its first blocks)."
        ],
        grids={"mix": Grid(columns=columns, caption="A, B, and what z draws with some sections of B.")},
        measures={"sections": {name: list(numbers) for name, numbers in parts.items()}, **measures},
        tables=tables,
        heat_maps=maps,
    )


def mixtures(a: np.ndarray, b: np.ndarray, parts: dict[str, tuple[int, ...]]) -> list[np.ndarray]:
    """z of A, A with each part from B, z of B; each [n, s, d]."""
    mixed = (mix(jnp.asarray(a), jnp.asarray(b), numbers) for numbers in parts.values())
    return [a, *map(np.asarray, mixed), b]


def follows(
    verdicts: Verdicts, couples: Sequence[tuple[int, int]], truth: Verdicts, label: str
) -> dict[str, np.ndarray]:
    """Of the couples that differ in a label, [c, m]: judged as B is, as A is; of those that agree: judged otherwise.

    verdicts: [couples, m] by label; truth: the classes of all examples.
    """
    a, b = (truth[label][[couple[i] for couple in couples]] for i in (0, 1))
    seen, differ = verdicts[label], a != b
    return {
        "as_b": (seen == b[:, None])[differ],
        "as_a": (seen == a[:, None])[differ],
        "lost": (seen != a[:, None])[~differ],
    }


def _measured(
    studio: Studio, drawn: np.ndarray, couples: Sequence[tuple[int, int]], parts: list[str]
) -> tuple[dict[str, Any], tuple[Table, ...], tuple[HeatMap, ...]]:
    jury = studio.jury
    verdicts, columns = jury(drawn), ["none", *parts, "all"]
    by_label = {name: follows(verdicts, couples, studio.labels, name) for name in jury.report}
    rows = {name: _row(jury, by_label, i) for i, name in enumerate(columns)}
    table = Table(
        head=["sections of B", "factors that differ: judged as B", "as A", "factors that agree: drifted"],
        rows=[[name, *(_text(row[key]) for key in ("as_b", "as_a", "lost"))] for name, row in rows.items()],
        caption=words(jury),
    )
    values = [[_mean(by_label[name]["as_b"][:, i]) for i in range(len(columns))] for name in jury.report]
    heat = HeatMap(
        title="Share judged as B, where A and B differ",
        rows=list(jury.report),
        columns=columns,
        values=values,
    )
    by_factor = {
        name: dict(zip(columns, row, strict=True)) for name, row in zip(heat.rows, values, strict=True)
    }
    measures = {"from_b": rows, "as_b_by_factor": by_factor, "judge": dict(jury.report)}
    return measures, (table,), (heat,)


def _row(jury: Jury, by_label: dict[str, dict[str, np.ndarray]], column: int) -> dict[str, Any]:
    """Over the labels that count; None where no couple tells."""
    joined = {
        key: np.concatenate([by_label[name][key][:, column] for name in jury.reliable])
        for key in ("as_b", "as_a", "lost")
    }
    return {key: share(hits) if hits.size else None for key, hits in joined.items()}


def _text(one: dict[str, Any] | None) -> str:
    return percent(one) if one else "-"


def _mean(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if hits.size else None


def _numbers(sections: Sequence[int]) -> str:
    return "-".join(dict.fromkeys([str(sections[0]), str(sections[-1])]))
