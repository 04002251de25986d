"""What a mode of editing hands over, and how it is written: WORKDIR/edit/<mode>/ with results.json, written last."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import runs
from experiments.editing.studio import Studio
from experiments.pictures import IMAGES_OF, guidance_words
from experiments.probing import write_json
from soda_jax.parallel import processes
from soda_jax.parallel.preflight import check_alike
from soda_jax.report import exhibit, page
from soda_jax.report.exhibit import Curves, Exhibit, HeatMap, Table
from soda_jax.report.figures import save_grid

SETTINGS = ("seed", "count", "images", "fit", "judge_images", "label")  # flags that change what comes out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A picture of pictures: titled columns, and what is to be seen."""

    columns: Sequence[tuple[str, Any]]
    caption: str
    row_titles: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one mode: what it says, and files by name: grids (.png) and pages (.html)."""

    title: str
    paragraphs: Sequence[str]
    grids: Mapping[str, Grid]
    measures: Mapping[str, Any]
    tables: Sequence[Table] = ()
    curves: Sequence[Curves] = ()
    heat_maps: Sequence[HeatMap] = ()
    pages: Mapping[str, str] = dataclasses.field(default_factory=dict)


def made_from(studio: Studio) -> dict[str, str]:
    """Hashes of all that the files depend on."""
    groups = ("seed", "method", "model", "data", "diffusion", "samples")
    kept = runs.decisive(studio.run.config, groups)
    flags = {name: getattr(studio.arguments, name) for name in SETTINGS}
    return {
        "weights": runs.fingerprint(studio.variables),
        "settings": runs.digest([kept, flags, studio.job.dataset.manifest]),
    }


def found(studio: Studio, mode: str) -> list[Path]:
    """The files of this mode, where they are there and made from the same; empty otherwise."""
    folder = folder_of(studio, mode)
    check_alike({"mode": mode, **made_from(studio)})
    path = folder / "results.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    paths = [folder / name for name in known.get("files", ())]
    same = known.get("made_from") == made_from(studio)
    return paths if same and all(p.is_file() for p in paths) else []


def write(studio: Studio, mode: str, outcome: Outcome, order: int, command: str) -> list[Path]:
    """Everything, by process 0; returns the paths of pictures and pages."""
    folder = folder_of(studio, mode)
    names = [*(f"{name}.png" for name in outcome.grids), *(f"{name}.html" for name in outcome.pages)]
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").unlink(missing_ok=True)  # a job that ends half-way leaves no old results
        for name, grid in outcome.grids.items():
            side = 64 if len(grid.columns) > 9 else 96
            options = {"row_titles": grid.row_titles, "description": grid.caption, "side": side}
            save_grid(folder / f"{name}.png", grid.columns, **options)
        for name, document in outcome.pages.items():
            page.write(folder / f"{name}.html", document)
        exhibit.write(folder, shown(studio, outcome, order, command))
    record = {"mode": mode, "step": studio.run.step, "measures": outcome.measures, "files": names}
    write_json(folder / "results.json", {**record, "made_from": made_from(studio)})
    return [folder / name for name in names]


def shown(studio: Studio, outcome: Outcome, order: int, command: str) -> Exhibit:
    """Its section of the report."""
    return Exhibit(
        title=outcome.title,
        order=order,
        paragraphs=[*outcome.paragraphs, made_words(studio)],
        tables=outcome.tables,
        curves=outcome.curves,
        heat_maps=outcome.heat_maps,
        pictures=[(f"{name}.png", grid.caption) for name, grid in outcome.grids.items()],
        links=[(f"{name}.html", "A page to open in a browser") for name in outcome.pages],
        command=command,
    )


def made_words(studio: Studio) -> str:
    """Which images, which sampler."""
    s = studio.run.config.samples
    kind = IMAGES_OF[studio.split]
    return (
        f"Step {studio.run.step}; {len(studio.examples)} {kind}; {s.sampler.upper()} in {s.steps} steps"
        f"{guidance_words(s)}; seed {studio.arguments.seed}."
    )


def folder_of(studio: Studio, mode: str) -> Path:
    """WORKDIR/edit/<mode>"""
    return studio.run.workdir / "edit" / mode
