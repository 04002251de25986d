"""Grids of small images as PNG files: crisp, titled, readable on a light and on a dark page.

An image is enlarged by a whole number of times, so that each of its pixels stays a square. The canvas is
transparent and the words are mid-grey: such a file can stand on any background.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

Images = Any  # uint8 [b, h, w, c] in 0..255, c is 1 or 3: an array of numpy or JAX, or a list of [h, w, c]
Columns = Mapping[str, Images] | Sequence[tuple[str, Images]]

SIDE = 128  # pixels that a small image is enlarged to, about
GAP = 6  # pixels between two images
WORDS = (125, 125, 125, 255)  # contrast of 4 to 5 against white and against near-black
FONT_SIZE = 15


def save_grid(
    path: str | os.PathLike,
    columns: Columns,
    *,
    row_titles: Sequence[str] = (),
    side: int = SIDE,
    description: str = "",
) -> Path:
    """Writes `columns` (title -> images, uint8 in 0..255) side by side as one PNG, whole or not at all.

    A title that several neighbouring columns share is written once above them: pass pairs
    `[("source", a), ("generated", b), ("generated", c)]`. `description` is kept in the file as text.
    Raises ValueError where an image is no uint8 picture of 1 or 3 channels, or columns differ in length.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    info = PngInfo()
    info.add_itxt("Description", description)
    grid(columns, row_titles=row_titles, side=side).save(part, format="PNG", pnginfo=info, optimize=True)
    os.replace(part, path)
    return path


def save_strip(path: str | os.PathLike, images: Images, titles: Sequence[str], **options) -> Path:
    """Writes one row of images (uint8 [b, h, w, c]), one title above each; options as of `save_grid`."""
    if len(images) != len(titles):
        raise ValueError(f"save_strip: expected one title an image, got {len(titles)} for {len(images)}")
    return save_grid(path, [(title, [image]) for title, image in zip(titles, images, strict=True)], **options)


def grid(columns: Columns, *, row_titles: Sequence[str] = (), side: int = SIDE) -> Pillow.Image:
    """The picture that `save_grid` writes (RGBA), not yet written."""
    titles, stacks = _unzip(columns)
    tiles = [[_tile(image, side) for image in stack] for stack in stacks]
    rows = _rows(titles, tiles, row_titles)
    cell = max(max(tile.size) for stack in tiles for tile in stack)
    left, top = _margin_left(row_titles), _margin_top(titles)
    canvas = Pillow.new("RGBA", (left + len(tiles) * (cell + GAP), top + rows * (cell + GAP)), (0, 0, 0, 0))
    _paste(canvas, tiles, cell, left, top)
    _write_titles(canvas, titles, cell, left)
    _write_row_titles(canvas, row_titles, cell, top)
    return canvas


def describe(path: str | os.PathLike) -> str:
    """The description that `save_grid` kept in a PNG file; empty where there is none."""
    with Pillow.open(path) as picture:
        return str(picture.info.get("Description", ""))


def _unzip(columns: Columns) -> tuple[list[str], list[Images]]:
    pairs: Iterable = columns.items() if isinstance(columns, Mapping) else columns
    titles, stacks = zip(*pairs, strict=True) if columns else ((), ())
    if not stacks or not all(len(stack) for stack in stacks):
        raise ValueError(
            f"save_grid: expected images in every column, got {len(stacks)} columns {list(titles)}"
        )
    return list(titles), list(stacks)


def _rows(titles: list[str], tiles: list[list[Pillow.Image]], row_titles: Sequence[str]) -> int:
    lengths = {title: len(stack) for title, stack in zip(titles, tiles, strict=True)}
    counts = {len(stack) for stack in tiles} | ({len(row_titles)} if row_titles else set())
    if len(counts) != 1:
        raise ValueError(
            f"save_grid: expected columns of one length, got {lengths} and {len(row_titles)} row titles"
        )
    return counts.pop()


def _tile(image: Any, side: int) -> Pillow.Image:
    """One image as RGB, each pixel enlarged to n x n, n the whole number that brings it nearest to `side`."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"save_grid: expected uint8 [h, w, 1 or 3], got {image.dtype} {list(image.shape)}")
    times = max(1, round(side / max(image.shape[:2])))
    pixels = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    return Pillow.fromarray(np.repeat(np.repeat(pixels, times, axis=0), times, axis=1))


def _paste(canvas: Pillow.Image, tiles: list[list[Pillow.Image]], cell: int, left: int, top: int) -> None:
    """Every tile in the middle of its cell (columns may hold images of different sizes)."""
    for column, stack in enumerate(tiles):
        for row, tile in enumerate(stack):
            x = left + column * (cell + GAP) + (cell - tile.width) // 2
            y = top + row * (cell + GAP) + (cell - tile.height) // 2
            canvas.paste(tile, (x, y))


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(FONT_SIZE)  # it travels inside Pillow: the same on every machine


def _margin_left(row_titles: Sequence[str]) -> int:
    return round(max((_font().getlength(title) for title in row_titles), default=-2 * GAP)) + 2 * GAP


def _margin_top(titles: Sequence[str]) -> int:
    return FONT_SIZE + 2 * GAP if any(titles) else 0


def _write_titles(canvas: Pillow.Image, titles: Sequence[str], cell: int, left: int) -> None:
    draw = ImageDraw.Draw(canvas)
    for first, last, title in _spans(titles):
        middle = left + (first + last + 1) * (cell + GAP) / 2 - GAP / 2
        draw.text((middle, GAP), title, fill=WORDS, font=_font(), anchor="ma")


def _write_row_titles(canvas: Pillow.Image, row_titles: Sequence[str], cell: int, top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    for row, title in enumerate(row_titles):
        draw.text((GAP, top + row * (cell + GAP) + cell / 2), title, fill=WORDS, font=_font(), anchor="lm")


def _spans(titles: Sequence[str]) -> list[tuple[int, int, str]]:
    """Runs of equal neighbours as (first, last, title)."""
    starts = [i for i, title in enumerate(titles) if i == 0 or titles[i - 1] != title]
    ends = [start - 1 for start in starts[1:]] + [len(titles) - 1]
    return [(start, end, titles[start]) for start, end in zip(starts, ends, strict=True)]
