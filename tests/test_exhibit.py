"""Exhibits: what jobs leave is what the page of the run shows, the newest of each job."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments import report
from soda_jax.report import exhibit
from soda_jax.report.exhibit import Curves, Exhibit, HeatMap, Table
from soda_jax.report.heat_map import heat_map
from soda_jax.report.page import gif_size
from tests.made_up_run import write_run

WHOLE = Exhibit(
    title="Orbits & more",
    order=2,
    paragraphs=("Of eight scenes.",),
    tables=(Table(head=("what", "PSNR"), rows=(("ours", "23.1"), ("<none>", "9")), caption="in dB"),),
    curves=(Curves(title="PSNR", x="steps", series={"a": ((1, 10, 100), (1.0, 2.0, 2.5))}, log_x=True),),
    heat_maps=(HeatMap(title="who knows what", rows=("0", "1"), columns=("hue",), values=((0.5,), (None,))),),
    pictures=(("orbit.gif", "turns"), ("grid.png", "stands")),
    links=(("explorer.html", "The explorer"),),
    command="python -m experiments.sample --mode=novel_views",
)


def put(folder, what=WHOLE):
    """The exhibit and its pictures, a 6 x 4 GIF of two frames among them."""
    folder.mkdir(parents=True)
    frames = [Image.fromarray(np.full((4, 6), grey, np.uint8)) for grey in (0, 255)]
    frames[0].save(folder / "orbit.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "grid.png")
    exhibit.write(folder, what)
    return folder


def test_an_exhibit_is_read_as_it_was_written(tmp_path):
    found = exhibit.read(put(tmp_path / "novel_views" / "8"))
    assert found.exhibit.tables[0].rows[1] == ["<none>", "9"] and found.exhibit.curves[0].log_x
    assert found.exhibit.heat_maps[0].values == [[0.5], [None]]
    assert gif_size(found.pictures["orbit.gif"]) == (6, 4) and set(found.pictures) == {
        "orbit.gif",
        "grid.png",
    }
    assert exhibit.read(put_again(tmp_path, found)).exhibit == found.exhibit


def put_again(tmp_path, found):
    return put(tmp_path / "other" / "8", found.exhibit)


def test_the_page_shows_all_parts_with_their_words_escaped(tmp_path):
    section = exhibit.render(exhibit.read(put(tmp_path / "a" / "1")))
    words = re.sub(r"<[^>]+>", " ", section)
    for text in (
        "Orbits &amp; more",
        "Of eight scenes.",
        "&lt;none&gt;",
        "in dB",
        "turns",
        "explorer.html",
        "0.50",
    ):
        assert text in words
    assert "data:image/gif;base64,R0lG" in section and "data:image/png" in section
    assert "--mode=novel_views" in section and section.count("<svg") == 2


def test_of_each_job_the_newest_step_and_of_editing_every_mode(tmp_path):
    run = write_run(tmp_path / "run", steps=20, probes=(), pictures=False)
    for place, title, order in [
        ("novel_views/9", "old", 0),
        ("novel_views/10", "new", 3),
        ("edit/mix", "mix", 1),
        ("edit/directions", "directions", 1),
    ]:
        put(run / place, Exhibit(title=title, order=order))
    assert [found.exhibit.title for found in report.read(run).exhibits] == ["directions", "mix", "new"]
    page = report.report(run).read_text()
    assert "<h2>mix</h2>" in page and "<h2>old</h2>" not in page
    assert page.index("<h2>mix</h2>") < page.index("<h2>new</h2>") < page.index("<h2>Training</h2>")


@pytest.mark.parametrize(
    "text", ["{", '{"title": "x", "unknown": 1}', '{"title": "x", "tables": [{"head": []}]}']
)
def test_a_damaged_exhibit_is_named(tmp_path, text):
    folder = put(tmp_path / "a" / "1")
    (folder / "exhibit.json").write_text(text)
    with pytest.raises(ValueError, match=r"a/1/exhibit\.json is damaged .*run its job again"):
        exhibit.read(folder)


def test_a_picture_that_is_gone_is_named(tmp_path):
    folder = put(tmp_path / "a" / "1")
    (folder / "grid.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"grid\.png"):
        exhibit.read(folder)


def test_the_largest_cell_of_a_heat_map_has_the_strongest_colour():
    svg = heat_map(["a", "b"], ["x", "y"], [[0.0, 1.0], [0.5, None]], title="t")
    opacity = dict(re.findall(r'fill-opacity="([\d.]+)".*?<title>([^:]+):', svg))
    assert {name: float(share) for share, name in opacity.items()} == {
        "a, x": 0.06,
        "a, y": 1.0,
        "b, x": 0.53,
    }
    assert svg.count('class="on"') == 1  # the number of the darkest cell, in the colour of the paper


def test_a_heat_map_of_the_wrong_shape_is_refused_and_an_empty_one_is_nothing():
    with pytest.raises(ValueError, match="expected 1 x 2 values"):
        heat_map(["a"], ["x", "y"], [[1.0]], title="t")
    assert heat_map(["a"], ["x"], [[None]], title="t") == ""
