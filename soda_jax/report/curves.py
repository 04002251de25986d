"""Charts as inline SVG: lines, dots with intervals, bars. No script, no library; colours come from the page.

Every mark carries a class (`c0` ... `c5`, `axis`, `rule`, `faint`, `dashed`), and `style.py` gives it a
colour for a light and for a dark background. Lengths are pixels of the viewBox, which the page scales.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import numpy as np

from soda_jax.report.style import STYLE

Number = int | float
Values = Sequence[Number] | np.ndarray  # one axis

WIDTH, HEIGHT = 480, 250
WIDE = 860  # of the chart that has the page to itself
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 30, 40  # margins around the plot
LETTER = 6.4  # mean width of a letter at the charts' font size
MOST_POINTS = 600  # a longer series is averaged down to this many points: a page of a long run stays small


@dataclass(frozen=True, kw_only=True)
class Series:
    """One named line: `x` and `y` of equal length, values that are not finite are left out as gaps."""

    name: str
    x: Values
    y: Values
    colour: int = 0
    style: Literal["line", "faint", "dashed"] = "line"
    low: Values = field(default=())  # an interval around y, empty for none
    high: Values = field(default=())


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One dot of a row in `dot_chart`, with an interval where `low` < `high`."""

    value: Number
    low: Number
    high: Number
    colour: int
    title: str


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end], straight or in logarithms."""

    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False

    def __call__(self, value: Number) -> float:
        turn: Callable[[Number], float] = math.log if self.log else float
        part = (turn(value) - turn(self.low)) / (turn(self.high) - turn(self.low))
        return round(self.start + part * (self.end - self.start), 2)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "images",
    percent: bool = False,
    from_zero: bool = False,
    log: bool = False,
    log_x: bool = False,
) -> str:
    """Lines over a common x. `log` is obeyed only where the values span more than a factor of 4 above 0.

    log_x: for x above 0.
    """
    series = [thinned(one) for one in series if len(one.x)]
    xs, ys = (
        _finite(v for s in series for v in s.x),
        _finite(v for s in series for v in (*s.y, *s.low, *s.high)),
    )
    if not xs or not ys:
        return ""
    log = log and min(ys) > 0 and max(ys) > 4 * min(ys)
    reach = _limits(xs, log=True, from_zero=False) if log_x else _room(min(0.0, *xs), max(xs), pad=0.0)
    x = Scale(*reach, LEFT, WIDTH - RIGHT, log_x)
    y = Scale(*_limits(ys, log, from_zero), HEIGHT - BOTTOM, TOP, log)
    marks = [_y_axis(y, percent), _x_axis(x, x_label), *(_band(s, x, y) for s in series), _legend(series)]
    return _svg(marks + [_line(s, x, y) for s in series], title, HEIGHT)


def dot_chart(
    rows: Sequence[tuple[str, Sequence[Dot]]], *, title: str, legend: Sequence[tuple[str, int]]
) -> str:
    """One row a name, dots at shares in 0..1 with their intervals as whiskers, on an axis from 0 to 100 %."""
    step, left = 34, 20 + LETTER * max(len(name) for name, _ in rows)
    height = TOP + step * len(rows) + BOTTOM
    x = Scale(0.0, 1.0, left, WIDE - 2 * RIGHT)
    marks = [
        _x_axis(x, "test accuracy", percent=True, height=height),
        _names([(*entry, "line") for entry in legend]),
    ]
    for i, (name, dots) in enumerate(rows):
        middle = TOP + step * (i + 0.5)
        marks.append(f'<text x="{left - 10:.1f}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        spread = [middle + 6 * (j - (len(dots) - 1) / 2) for j in range(len(dots))]
        marks += [_whiskers(dot, x, y) for dot, y in zip(dots, spread, strict=True)]
    return _svg(marks, title, height, WIDE)


def bar_chart(names: Sequence[str], values: Values, *, title: str, colour: int = 0) -> str:
    """Horizontal bars from zero, the value written at each end; negative values go to the left."""
    step, left = 20, 24 + LETTER * max(len(name) for name in names)
    height = step * len(names) + 12
    reach = float(min(0.0, *values)), float(max(0.0, *values))
    x = Scale(*_room(*reach, pad=0.0), left, WIDTH - 64)
    marks = [f'<line class="axis" x1="{x(0)}" x2="{x(0)}" y1="2" y2="{height - 2}"/>']
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        top, start, end = 6 + step * i, min(x(0), x(value)), max(x(0), x(value))
        area = f'x="{start}" y="{top + 2}" width="{end - start:.2f}" height="{step - 7}"'
        marks += [
            f'<text x="{left - 10:.1f}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="c{colour} fill" {area}/>',
            f'<text x="{end + 6:.1f}" y="{top + 12}">{value:.2g}</text>',
        ]
    return _svg(marks, title, height)


def standalone(chart: str) -> str:
    """A chart as a file of its own, with the colours of the page."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" '
    return chart.replace("<svg ", head, 1).replace(">", f"><style>{STYLE}</style>", 1)


def smooth(values: Values, window: int) -> list[float]:
    """The centred running mean (at the ends: of fewer values); what is not finite does not count."""
    array = np.asarray(values, np.float64)
    known, kernel = np.isfinite(array), np.ones(max(1, window))
    total = np.convolve(np.where(known, array, 0.0), kernel)
    count = np.convolve(known.astype(float), kernel)
    start = (len(kernel) - 1) // 2
    return [float(t / c) if c else math.nan for t, c in zip(total[start:], count[start:], strict=True)][
        : len(array)
    ]


def thinned(series: Series, most: int = MOST_POINTS) -> Series:
    """The same line through at most `most` points, each the mean of its neighbours."""
    if len(series.x) <= most:
        return series
    cuts = np.array_split(np.arange(len(series.x)), most)
    mean = {name: _means(getattr(series, name), cuts) for name in ("x", "y", "low", "high")}
    return Series(name=series.name, colour=series.colour, style=series.style, **mean)


def ticks(low: Number, high: Number, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    return [
        round(step * k, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def log_ticks(low: Number, high: Number) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high], for a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def short(value: Number) -> str:
    """A number as an axis shows it: 12500 is 12.5k, 3000000 is 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _finite(values) -> list[float]:
    return [float(v) for v in values if math.isfinite(v)]


def _means(values: Values, cuts: Sequence[np.ndarray]) -> list[float]:
    array = np.asarray(values, np.float64)
    return [float(array[cut].mean()) for cut in cuts] if len(array) else []


def _room(low: Number, high: Number, pad: Number) -> tuple[float, float]:
    """The range, widened by the share `pad`; a range of nothing becomes a small one."""
    width = high - low or abs(high) * 0.1 or 1.0
    return (low - pad * width, high + pad * width) if high > low else (low - width / 2, high + width / 2)


def _limits(values: Values, log: bool, from_zero: bool) -> tuple[float, float]:
    if log:
        return min(values) / 1.1, max(values) * 1.1
    low, high = _room(min(values), max(values), pad=0.06)
    return (min(0.0, min(values)), max(high, 1e-9)) if from_zero else (low, high)


def _y_axis(y: Scale, percent: bool) -> str:
    marks = []
    for value in log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high, 4):
        label = f"{value * 100:.3g}%" if percent else short(value)
        marks.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}"/>')
        marks.append(f'<text x="{LEFT - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(marks)


def _x_axis(x: Scale, label: str, percent: bool = False, height: Number = HEIGHT) -> str:
    base = height - BOTTOM
    marks = [f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{base}" y2="{base}"/>']
    for value in log_ticks(x.low, x.high) if x.log else ticks(x.low, x.high, 5):
        words = f"{value * 100:.3g}%" if percent else short(value)
        rule = (
            f'<line class="rule" x1="{x(value)}" x2="{x(value)}" y1="{TOP}" y2="{base}"/>' if percent else ""
        )
        marks.append(f'{rule}<text x="{x(value)}" y="{base + 17}" text-anchor="middle">{words}</text>')
    middle = (x.start + x.end) / 2
    return "".join(marks) + f'<text x="{middle}" y="{base + 33}" text-anchor="middle">{escape(label)}</text>'


def _line(series: Series, x: Scale, y: Scale) -> str:
    """A path that stops at gaps; a single point, which no path would show, is a dot."""
    path, pen_down = [], False
    for a, b in zip(series.x, series.y, strict=True):
        known = math.isfinite(b) and (b > 0 or not y.log)
        path += [f"{'L' if pen_down else 'M'}{x(a)} {y(b)}"] if known else []
        pen_down = known
    dots = "".join(
        f'<circle class="c{series.colour} fill" cx="{p[1:].split()[0]}" cy="{p.split()[1]}" r="3"/>'
        for p in path
    )
    line = f'<path class="c{series.colour} {series.style}" d="{"".join(path)}"/>' if path else ""
    return line + (dots if len(path) <= 12 and series.style == "line" else "")


def _band(series: Series, x: Scale, y: Scale) -> str:
    if not len(series.low):
        return ""
    above = [f"{x(a)},{y(b)}" for a, b in zip(series.x, series.high, strict=True)]
    below = [f"{x(a)},{y(b)}" for a, b in zip(series.x, series.low, strict=True)]
    return f'<polygon class="c{series.colour} band" points="{" ".join(above + below[::-1])}"/>'


def _whiskers(dot: Dot, x: Scale, y: Number) -> str:
    line = (
        f'<line class="c{dot.colour} line" x1="{x(dot.low)}" x2="{x(dot.high)}" y1="{y:.1f}" y2="{y:.1f}"/>'
    )
    mark = f'<circle class="c{dot.colour} fill" cx="{x(dot.value)}" cy="{y:.1f}" r="3.2"/>'
    return f"<g>{line}{mark}<title>{escape(dot.title)}</title></g>"


def _legend(series: Sequence[Series]) -> str:
    return _names([(s.name, s.colour, s.style) for s in series if s.style != "faint" and s.name])


def _names(entries: Sequence[tuple[str, int, str]]) -> str:
    """Names in a row above the plot, each after a short stroke in its colour."""
    marks, left = [], 14.0
    for name, colour, style in entries:
        marks.append(
            f'<line class="c{colour} {style}" x1="{left:.1f}" x2="{left + 14:.1f}" y1="12" y2="12"/>'
        )
        marks.append(f'<text x="{left + 19:.1f}" y="16">{escape(name)}</text>')
        left += 36 + LETTER * len(name)
    return "".join(marks)


def _svg(marks: Sequence[str], title: str, height: Number, width: Number = WIDTH) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
