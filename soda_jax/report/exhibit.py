"""What a job shows on the page of its run: it leaves an exhibit beside its results, and the page shows what it finds.

So a new job needs no change of the report. An exhibit is one JSON file; its pictures lie in the same folder.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from soda_jax.report import page as html
from soda_jax.report.curves import Number, Series, line_chart
from soda_jax.report.heat_map import heat_map
from soda_jax.report.page import Html

FILE = "exhibit.json"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as texts; each row as long as the head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Named lines over one axis: name -> (xs, ys) of equal length."""

    title: str
    x: str  # what is on the horizontal axis
    series: Mapping[str, Sequence[Sequence[Number]]]
    log_x: bool = False


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Values by row and column, None where there is none."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Number | None]]


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One section of the page. Its parts are shown in the order of the fields."""

    title: str
    order: int = 0  # smaller ones come first
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    curves: Sequence[Curves] = ()
    heat_maps: Sequence[HeatMap] = ()
    pictures: Sequence[Sequence[str]] = ()  # (file name of a PNG or GIF in the folder, caption)
    links: Sequence[Sequence[str]] = ()  # (file name in the folder, what it is): shown as a path to open
    command: str = ""  # that makes all this again


@dataclass(frozen=True, kw_only=True)
class Found:
    """An exhibit with the bytes of its pictures."""

    exhibit: Exhibit
    folder: Path
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def write(folder: str | os.PathLike, exhibit: Exhibit) -> Path:
    """Writes `folder/exhibit.json`, whole or not at all. One process of a job calls it, after its pictures."""
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(FILE + ".part")
    part.write_text(json.dumps(asdict(exhibit), indent=1) + "\n")
    part.replace(path)
    return path


def read(folder: str | os.PathLike) -> Found:
    """The exhibit of this folder and its pictures.

    Raises ValueError where the file is no exhibit of this version, FileNotFoundError where a picture is gone.
    """
    folder = Path(folder)
    try:
        exhibit = _exhibit(json.loads((folder / FILE).read_text()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / FILE} is damaged ({error}): delete it and run its job again") from error
    return Found(
        exhibit=exhibit,
        folder=folder,
        pictures={name: (folder / name).read_bytes() for name, _ in exhibit.pictures},
    )


def _exhibit(values: Mapping[str, Any]) -> Exhibit:
    parts = {"tables": Table, "curves": Curves, "heat_maps": HeatMap}
    made = {name: tuple(kind(**one) for one in values[name]) for name, kind in parts.items()}
    return Exhibit(**{**values, **made})


def find(workdir: str | os.PathLike) -> list[Found]:
    """Those of a run, in the order of the page: of each job its newest step, and every kind of editing."""
    newest: dict[str, Path] = {}
    for path in sorted(Path(workdir).glob(f"*/*/{FILE}"), key=lambda path: _step(path.parent.name)):
        folder = path.parent
        newest[folder.parent.name if folder.name.isdigit() else str(folder)] = folder
    found = [read(folder) for folder in newest.values()]
    return sorted(found, key=lambda one: (one.exhibit.order, one.exhibit.title))


def _step(name: str) -> int:
    return int(name) if name.isdigit() else -1


def render(found: Found) -> Html:
    """The section of the page."""
    e = found.exhibit
    parts = [html.paragraph(text) for text in e.paragraphs]
    parts += [_table(one) for one in e.tables]
    parts.append(html.side_by_side(*(html.chart(_chart(one), one.title) for one in e.curves)))
    parts += [html.chart(heat_map(m.rows, m.columns, m.values, title=m.title), m.title) for m in e.heat_maps]
    parts += [
        html.picture(found.pictures[name], alt=f"{e.title}: {name}", caption=words)
        for name, words in e.pictures
    ]
    parts += [html.paragraph(f"{words}: {found.folder / name}") for name, words in e.links]
    parts.append(html.preformatted(e.command) if e.command else "")
    return html.section(e.title, *parts)


def _table(table: Table) -> Html:
    cells = html.table(table.head, [[html.cell(text) for text in row] for row in table.rows])
    return cells + (html.paragraph(table.caption, "soft") if table.caption else "")


def _chart(curves: Curves) -> Html:
    lines = [
        Series(name=name, x=xs, y=ys, colour=i % 6)
        for i, (name, (xs, ys)) in enumerate(curves.series.items())
    ]
    return line_chart(lines, title=curves.title, x_label=curves.x, log_x=curves.log_x)
