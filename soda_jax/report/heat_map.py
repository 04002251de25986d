"""A table of numbers as coloured cells, each with its number, as inline SVG; colours come from the page."""

import math
from collections.abc import Sequence
from html import escape

from soda_jax.report.curves import LETTER, WIDE, Number

CELL_HEIGHT, WIDEST, MARGIN = 22, 84.0, 12  # pixels of the viewBox
DARK = 0.55  # share of the range from which on the number is written in the colour of the paper

Values = Sequence[Sequence[Number | None]]  # [rows][columns]; None: no such cell


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Values, *, title: str, digits: int = 2
) -> str:
    """Rows from the top, the strongest colour for the largest value. Nothing where there is no value.

    Raises ValueError where the values are not len(rows) x len(columns).
    """
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError(
            f"heat_map: expected {len(rows)} x {len(columns)} values, got rows of {[len(row) for row in values]}"
        )
    known = [v for row in values for v in row if v is not None and math.isfinite(v)]
    if not known:
        return ""
    low, high = min(known), max(known)
    left = MARGIN + LETTER * max(len(name) for name in rows) + 8
    width = min(WIDEST, (WIDE - left - MARGIN) / len(columns))
    marks = [_column_name(name, left + (i + 0.5) * width, width, i) for i, name in enumerate(columns)]
    top = 22 if all(LETTER * len(name) < width for name in columns) else 34
    for j, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = top + j * CELL_HEIGHT
        marks.append(f'<text x="{left - 8:.1f}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        marks += [
            _cell(left + i * width, y, width, value, (low, high), f"{name}, {columns[i]}", digits)
            for i, value in enumerate(row)
            if value is not None and math.isfinite(value)
        ]
    height = top + len(rows) * CELL_HEIGHT + MARGIN
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDE} {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'


def _column_name(name: str, x: Number, width: Number, number: int) -> str:
    """Names that are wider than their column stand on two lines, in turn."""
    y = 14 if LETTER * len(name) < width or number % 2 else 26
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>'


def _cell(
    x: Number, y: Number, width: Number, value: Number, limits: tuple[Number, Number], name: str, digits: int
) -> str:
    low, high = limits
    share = (value - low) / (high - low) if high > low else 0.0
    area = f'x="{x:.1f}" y="{y}" width="{width - 1.5:.1f}" height="{CELL_HEIGHT - 1.5}"'
    words = f"{value:.{digits}f}"
    middle = f'x="{x + width / 2:.1f}" y="{y + 15}" text-anchor="middle"'
    kind = ' class="on"' if share > DARK else ""
    box = f'<rect class="c0 fill" fill-opacity="{0.06 + 0.94 * share:.3f}" {area}/>'
    number = f"<text{kind} {middle}>{words}</text>" if width > LETTER * len(words) else ""
    return f"<g>{box}{number}<title>{escape(name)}: {words}</title></g>"
