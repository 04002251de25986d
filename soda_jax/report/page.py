"""A self-contained HTML page from its parts: no script, nothing fetched, pictures inside as `data:` URIs.

The content policy in the page's head forbids every request, so a stray address cannot reach the network even
by mistake. Functions that take text escape it; those that take `Html` put it in as it is.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from soda_jax.report.style import STYLE

Html = str  # markup that is safe to put into the page
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: Sequence[Html], *, policy: str = "", style: str = "") -> Html:
    """The whole document; what a page of its own kind needs beyond `POLICY` and `STYLE` follows them."""
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{join(body)}\n</body></html>\n'


def write(path: str | os.PathLike, document: Html) -> Path:
    """Writes the page whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(document, encoding="utf-8")
    os.replace(part, path)
    return path


def join(parts: Sequence[Html]) -> Html:
    return "\n".join(part for part in parts if part)


def section(heading: str, *parts: Html) -> Html:
    return f"<section><h2>{escape(heading)}</h2>\n{join(parts)}\n</section>"


def paragraph(text: str, kind: str = "") -> Html:
    """Plain text; kinds: `soft`, `verdict`, `note` (a thing that is missing), `note warn`."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def facts(values: Mapping[str, str]) -> Html:
    """A row of figures, each with its name below."""
    pairs = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in values.items())
    return f'<dl class="facts">{pairs}</dl>'


def picture(data: bytes, *, alt: str, caption: str) -> Html:
    """A PNG or GIF file inside the page, at no more than its own size."""
    kind, (width, height) = ("gif", gif_size(data)) if data[:3] == b"GIF" else ("png", png_size(data))
    text = base64.b64encode(data).decode("ascii")
    size = f'width="{width}" height="{height}"'
    image = f'<img src="data:image/{kind};base64,{text}" {size} alt="{escape(alt, quote=True)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header. Raises ValueError where the bytes are no PNG."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError("expected a PNG file, found something else or a broken one")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def gif_size(gif: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header. Raises ValueError where the bytes are no GIF."""
    if gif[:6] not in (b"GIF87a", b"GIF89a") or len(gif) < 10:
        raise ValueError("expected a GIF file, found something else or a broken one")
    return int.from_bytes(gif[6:8], "little"), int.from_bytes(gif[8:10], "little")


def chart(svg: Html, heading: str) -> Html:
    """A chart under its heading; nothing where there was nothing to draw."""
    return f"<figure><figcaption>{escape(heading)}</figcaption>{svg}</figure>" if svg else ""


def side_by_side(*figures: Html) -> Html:
    """Charts in as many columns as fit; nothing where all are empty."""
    return f'<div class="pair">{join(figures)}</div>' if any(figures) else ""


def cell(text: str, small: str = "", *, best: bool = False) -> Html:
    """One cell of `table`: a value, a smaller line below it, and a mark for the best of its row."""
    below = f"<small>{escape(small)}</small>" if small else ""
    mark = ' class="best"' if best else ""
    return f"<td{mark}>{escape(text)}{below}</td>"


def table(
    head: Sequence[str], rows: Sequence[Sequence[Html]], groups: Sequence[tuple[str, int]] = ()
) -> Html:
    """A table of cells made by `cell`; `groups` are (name, columns) written above the head."""
    above = "".join(f'<th class="group" colspan="{n}">{escape(name)}</th>' for name, n in groups)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    top = f"<tr>{above}</tr>" if groups else ""
    return f'<div class="wide"><table><thead>{top}<tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table of words, set to the left, in code type."""
    names = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td><code>{escape(c)}</code></td>' for c in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="plain"><tr>{names}</tr>{body}</table></div>'


def preformatted(text: str) -> Html:
    return f"<pre>{escape(text)}</pre>"


def folded(summary: str, *parts: Html) -> Html:
    """Parts that open at a click."""
    return f"<details><summary>{escape(summary)}</summary>{join(parts)}</details>"
