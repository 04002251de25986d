"""The parts of the page: text cannot become markup, nothing can be fetched, files are whole."""

from html.parser import HTMLParser

import numpy as np
import pytest

from soda_jax.report import page
from soda_jax.report.figures import save_grid

VOID = {"meta", "link", "img", "line", "rect", "circle"}


class Reader(HTMLParser):
    """Collects tags and attributes, and sees that every element is closed where it should be."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


EVIL = '<script>alert("&")</script>'


@pytest.mark.parametrize(
    "part",
    [
        page.paragraph(EVIL),
        page.section(EVIL),
        page.facts({EVIL: EVIL}),
        page.table([EVIL], [[page.cell(EVIL, EVIL, best=True)]], [(EVIL, 1)]),
        page.plain_table([EVIL], [[EVIL]]),
        page.preformatted(EVIL),
        page.folded(EVIL),
        page.chart("<svg></svg>", EVIL),
    ],
)
def test_text_never_becomes_markup(part):
    reader = Reader(part)
    assert "script" not in reader.tags and EVIL in reader.text


def png(tmp_path, size=16):
    pixels = np.full((1, size, size, 3), 200, np.uint8)
    return save_grid(tmp_path / "a.png", [("", pixels)]).read_bytes()


def test_a_picture_is_inside_the_page_in_its_own_size(tmp_path):
    reader = Reader(page.picture(png(tmp_path), alt='"quoted"', caption="a"))
    attributes = dict(reader.attributes)
    assert attributes["src"].startswith("data:image/png;base64,")
    assert (attributes["width"], attributes["height"]) == ("134", "134")
    assert attributes["alt"] == '"quoted"'


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(30), b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_png_is_refused(data):
    with pytest.raises(ValueError, match="expected a PNG file"):
        page.png_size(data)


def test_the_page_forbids_scripts_and_requests(tmp_path):
    document = page.page("t", [page.picture(png(tmp_path), alt="a", caption="b")])
    reader = Reader(document.removeprefix("<!doctype html>"))
    policy = page.POLICY
    assert ("http-equiv", "Content-Security-Policy") in reader.attributes and (
        "content",
        policy,
    ) in reader.attributes
    assert policy.startswith("default-src 'none'") and "http" not in policy and "script-src" not in policy
    addresses = [value for name, value in reader.attributes if name in ("src", "href")]
    assert addresses and all(value.startswith("data:") for value in addresses)
    assert "script" not in reader.tags


def test_empty_parts_leave_nothing_behind():
    assert page.chart("", "heading") == "" and page.side_by_side("", "") == "" and page.join(["", "a"]) == "a"


def test_the_best_cell_is_marked_and_the_others_are_not():
    assert 'class="best"' in page.cell("1", best=True) and "class" not in page.cell("1")


def test_a_page_is_written_whole(tmp_path):
    path = page.write(tmp_path / "report.html", "é")
    assert path.read_bytes() == "é".encode() and [p.name for p in tmp_path.iterdir()] == ["report.html"]
