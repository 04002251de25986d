"""Charts: marks stand where the numbers say, and gaps stay gaps."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from soda_jax.report import curves
from soda_jax.report.curves import (
    Dot,
    Scale,
    Series,
    bar_chart,
    dot_chart,
    line_chart,
    log_ticks,
    short,
    smooth,
    thinned,
    ticks,
)


def parts(svg, tag):
    """The elements of a chart, which must be well-formed."""
    return ElementTree.fromstring(svg).findall(f".//{tag}")


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path.get("d"))]


def test_a_line_maps_its_range_onto_the_plot():
    svg = line_chart([Series(name="loss", x=[0, 50, 100], y=[0.0, 1.0, 2.0])], title="t", from_zero=True)
    (path,) = [p for p in parts(svg, "path") if p.get("class") == "c0 line"]
    (x0, y0), (x1, y1), (x2, y2) = points(path)
    assert (x0, y0) == (curves.LEFT, curves.HEIGHT - curves.BOTTOM)
    assert x2 == curves.WIDTH - curves.RIGHT and y2 >= curves.TOP
    assert (x0 + x2) / 2 == pytest.approx(x1, abs=0.02) and (y0 + y2) / 2 == pytest.approx(y1, abs=0.02)


def test_the_axis_starts_at_zero_images():
    svg = line_chart([Series(name="", x=[1000, 2000], y=[1.0, 2.0])], title="t")
    words = [text.text for text in parts(svg, "text")]
    assert "0" in words and "2k" in words and "images" in words


def test_equal_ratios_take_equal_room_on_a_logarithmic_axis():
    svg = line_chart([Series(name="", x=[0, 1, 2], y=[0.01, 0.1, 1.0])], title="t", log=True)
    ys = [y for _, y in points(parts(svg, "path")[0])]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.02)


@pytest.mark.parametrize("values", [[1.0, 2.0], [-1.0, 8.0]])
def test_a_narrow_or_negative_range_is_not_logarithmic(values):
    series = [Series(name="", x=[0, 1], y=values)]
    assert line_chart(series, title="t", log=True) == line_chart(series, title="t")


def test_values_that_are_not_finite_cut_the_line():
    svg = line_chart([Series(name="", x=[0, 1, 2, 3], y=[1.0, math.nan, 2.0, math.inf])], title="t")
    (path,) = parts(svg, "path")
    assert path.get("d").count("M") == 2 and "L" not in path.get("d")


def test_one_point_is_seen_as_a_dot():
    assert len(parts(line_chart([Series(name="", x=[5], y=[1.0])], title="t"), "circle")) == 1


@pytest.mark.parametrize("y", [[], [math.nan]])
def test_nothing_gives_no_chart(y):
    assert line_chart([Series(name="", x=list(range(len(y))), y=y)], title="t") == ""


def test_a_band_lies_around_its_line_and_the_legend_names_it():
    series = Series(name="z & co", x=[0, 1], y=[0.5, 0.6], low=[0.4, 0.5], high=[0.6, 0.7], colour=3)
    svg = line_chart([series], title="t", percent=True)
    (band,) = parts(svg, "polygon")
    corners = [float(pair.split(",")[1]) for pair in band.get("points").split()]
    line = [y for _, y in points(parts(svg, "path")[0])]
    assert corners[0] < line[0] < corners[-1]
    assert "z & co" in [text.text for text in parts(svg, "text")]
    assert any(text.text.endswith("%") for text in parts(svg, "text"))


def test_a_title_cannot_break_out_of_its_attribute():
    assert 'aria-label="&quot;&gt;&lt;b&gt;"' in line_chart([Series(name="", x=[0], y=[1])], title='"><b>')


def test_dots_stand_at_their_shares_with_whiskers_over_the_interval():
    dot = Dot(value=0.5, low=0.25, high=0.75, colour=1, title="shape: 50%")
    svg = dot_chart([("shape", [dot])], title="t", legend=[("pooled", 1)])
    (circle,) = parts(svg, "circle")
    whisker = next(line for line in parts(svg, "g")[0] if line.tag == "line")
    middle, ends = float(circle.get("cx")), (float(whisker.get("x1")), float(whisker.get("x2")))
    assert middle == pytest.approx(sum(ends) / 2, abs=0.02)
    axis = next(line for line in parts(svg, "line") if line.get("class") == "axis")
    width = float(axis.get("x2")) - float(axis.get("x1"))
    assert ends[1] - ends[0] == pytest.approx(width / 2, abs=0.02)


def test_bars_are_as_long_as_their_values_and_negative_ones_go_left():
    bars = parts(bar_chart(["a", "b", "c"], [0.2, 0.1, -0.1], title="t"), "rect")
    widths = [float(bar.get("width")) for bar in bars]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.05)
    assert float(bars[2].get("x")) + widths[2] == pytest.approx(float(bars[0].get("x")), abs=0.05)


def test_bars_of_nothing_but_zeros_are_drawn():
    assert len(parts(bar_chart(["a", "b"], [0.0, 0.0], title="t"), "rect")) == 2


def test_the_running_mean_is_the_plain_mean_inside_and_shorter_at_the_ends():
    values = np.arange(9.0) ** 2
    result = smooth(values, 3)
    assert len(result) == 9
    assert result[4] == pytest.approx(values[3:6].mean())
    assert result[0] == pytest.approx(values[:2].mean()) and result[-1] == pytest.approx(values[-2:].mean())


def test_the_running_mean_leaves_out_what_is_not_finite():
    assert smooth([1.0, math.nan, 3.0], 3) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("window", [0, 1])
def test_a_window_of_one_changes_nothing(window):
    assert smooth([3.0, 1.0, 2.0], window) == [3.0, 1.0, 2.0]


def test_a_long_series_is_averaged_down_and_keeps_its_mean():
    y = np.random.default_rng(0).normal(size=6000)
    short_one = thinned(Series(name="", x=np.arange(6000.0), y=y))
    assert len(short_one.x) == len(short_one.y) == curves.MOST_POINTS
    assert np.mean(short_one.y) == pytest.approx(y.mean())
    assert len(short_one.low) == 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 24000, [0, 5000, 10000, 15000, 20000]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_one_two_five():
    assert log_ticks(0.05, 1.0) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1.0])


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (950, "950"), (12500, "12.5k"), (3e6, "3M"), (2.5e9, "2.5G"), (0.05, "0.05")],
)
def test_numbers_on_an_axis_are_short(value, words):
    assert short(value) == words


def test_a_scale_is_exact_at_its_ends():
    scale = Scale(1.0, 100.0, 0.0, 10.0, log=True)
    assert [scale(v) for v in (1, 10, 100)] == [0, 5, 10]
