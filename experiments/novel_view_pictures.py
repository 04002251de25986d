"""The pictures of novel views, their table, and what they show on the page of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import recognition
from experiments.drawing import source_columns
from experiments.held_out import Pairs
from experiments.runs import command
from soda_jax.report import exhibit
from soda_jax.report.animation import save_film
from soda_jax.report.exhibit import Exhibit, Table
from soda_jax.report.figures import save_grid

FILES = ("orbit.gif", "orbit.png", "views.png")
SHOWN = 8  # frames of a walk in orbit.png
MOST_SAMPLES = 4  # of a view in views.png
HEAD = ("", "PSNR, dB", "SSIM", "sharpness", "distance of untrained features")
ROWS = {"mean": "mean of {samples} samples", "one_sample": "one sample", "regressor": "regressor"}
ROWS |= {"nearest_view": "nearest source view, copied"}


def write(
    folder: Path, rows: int, pairs: Pairs, painted: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """All of FILES, then the exhibit."""
    words = description(found)
    save_grid(folder / "views.png", views(rows, pairs, painted), side=96, description=words)
    walks = {name: one.walks for name, one in painted.items()}
    save_grid(folder / "orbit.png", still(pairs, walks["soda"]), side=96, description=words)
    frames = [frame(pairs, walks, i) for i in range(walks["soda"].shape[1])]
    titles = [*(title for title, _ in source_columns(pairs.sources)), *walks]
    save_film(folder / "orbit.gif", frames, row_titles=titles, side=96, description=words)
    exhibit.write(folder, shown(found))


def description(found: Mapping[str, Any]) -> str:
    """How the pictures were made."""
    origin = found["made_from"]
    sampler, settings = origin["sampler"], origin["settings"]
    return (
        f"Step {found['step']} (weights {origin['weights']['soda'][:8]}), held-out scenes, seed {settings['seed']}, "
        f"{sampler['sampler'].upper()} in {sampler['steps']} steps, guidance {sampler['guidance']}."
    )


def views(rows: int, pairs: Pairs, painted: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The columns of views.png: the first target of each of the first scenes."""
    scenes = list(range(min(rows, len(pairs.sources))))
    first = [int(np.flatnonzero(pairs.row == scene)[0]) for scene in scenes]
    drawn = painted["soda"].views[first]
    mean = ("mean", recognition.mean_image(drawn))
    columns = [*source_columns(pairs.sources[scenes]), ("target", pairs.targets[first]), mean]
    columns += [("samples", drawn[:, i]) for i in range(min(MOST_SAMPLES, drawn.shape[1]))]
    if "regressor" in painted:
        columns.append(("regressor", painted["regressor"].views[first, 0]))
    return [*columns, ("nearest", pairs.nearest[first])]


def still(pairs: Pairs, walks: np.ndarray) -> list[tuple[str, Any]]:
    """The columns of orbit.png: the source, then frames of half of the walk, evenly spaced; a row a scene."""
    count = walks.shape[1]
    some = np.unique(np.linspace(0, count // 2, SHOWN).astype(int))
    return [*source_columns(pairs.sources[: len(walks)]), *(("orbit", walks[:, i]) for i in some)]


def frame(pairs: Pairs, walks: Mapping[str, np.ndarray], number: int) -> list[tuple[str, Any]]:
    """One frame of orbit.gif: a column a scene, its sources above what each model paints."""
    count, seen = len(walks["soda"]), source_columns(pairs.sources)
    painted = [walk[:, number] for walk in walks.values()]
    return [
        ("", [*(images[i] for _, images in seen), *(images[i] for images in painted)]) for i in range(count)
    ]


# Words ------------------------------------------------------------------------------------------------------


def rows_of(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Title -> figures, in the order of the table; without a regressor that was left out."""
    figures = {"mean": found, "one_sample": found["one_sample"], **found["baselines"]}
    return {
        words.format(samples=found["samples"]): figures[name] for name, words in ROWS.items() if figures[name]
    }


def cells(figures: Mapping[str, Any], measures: list[str]) -> list[str]:
    """ "24.13 [23.80, 24.40]" for each measure."""
    texts = []
    for name in measures:
        digits = 2 if name == "psnr" else 3
        values = (figures[name], *figures[f"{name}_ci95"])
        texts.append("{} [{}, {}]".format(*(f"{value:.{digits}f}" for value in values)))
    return texts


def table_text(found: Mapping[str, Any]) -> str:
    """For the terminal."""
    rows = ([title, *cells(row, found["measures"])] for title, row in rows_of(found).items())
    lines = [*aligned([HEAD, *rows]), *gains(found)]
    if "recognised" in found:
        table = recognition.table(found["recognised"])
        lines += [table.caption, *aligned([table.head, *table.rows])]
    return "\n".join(lines)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Its rows, column under column."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in table)
    return [line.rstrip() for line in lines]


def gains(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each baseline."""
    names = {"nearest_view": "copying the nearest view", "regressor": "the regressor"}
    return [
        f"against {names[name]}: {cells(row, ['psnr'])[0]} dB for the mean of the samples, sharpness of one sample "
        f"{cells(row, ['sharpness'])[0]}"
        for name, row in found["gain"].items()
    ]


def shown(found: Mapping[str, Any]) -> Exhibit:
    """What the page of the run shows."""
    rows = [[title, *cells(row, found["measures"])] for title, row in rows_of(found).items()]
    judged = [recognition.table(found["recognised"])] if "recognised" in found else []
    return Exhibit(
        title="Novel views",
        order=30,
        paragraphs=[paragraph(found), *(f"{text[0].upper()}{text[1:]}." for text in gains(found))],
        tables=[Table(head=HEAD, rows=rows, caption="Means, and 95% intervals over scenes."), *judged],
        pictures=[
            ("views.png", "Held-out scenes: what the encoder sees, what is wanted, and what is painted."),
            ("orbit.gif", "A walk around held-out scenes; all frames of a scene start from one noise."),
            ("orbit.png", "Frames of its first half."),
        ],
        command=command(),
    )


def paragraph(found: Mapping[str, Any]) -> str:
    """What was measured."""
    other = found["regressor"]
    against = (
        f"; the regressor has the same networks and paints the mean image at once, after {other['images']:,} images"
        if other
        else ""
    )
    return (
        f"{found['scenes']} scenes that were never trained on, each seen by one camera, painted as its other cameras "
        f"see it: {found['pairs']} views, after {found['images']:,} images{against}. Sharpness is the energy of the "
        "gradient over that of the true views: below 1 is blurred, above 1 grainy."
    )
