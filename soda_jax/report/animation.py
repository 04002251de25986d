"""Films of small images as GIF files: every frame is a grid of `figures.py`, on white; the last leads to the first."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow

from soda_jax.report.figures import SIDE, Columns, grid

MILLISECONDS = 80  # a frame is shown
WHITE = (255, 255, 255, 255)


def save_film(
    path: str | os.PathLike,
    frames: Sequence[Columns],
    *,
    row_titles: Sequence[str] = (),
    side: int = SIDE,
    description: str = "",
) -> Path:
    """Writes one frame after the other as a GIF that never ends, whole or not at all; columns as in `save_grid`.

    `description` is kept as the file's comment. Raises ValueError for a frame that is no grid, or no frame at all.
    """
    if not frames:
        raise ValueError("save_film: expected frames, got none")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    first, *rest = (_opaque(grid(frame, row_titles=row_titles, side=side)) for frame in frames)
    film = {"save_all": True, "append_images": rest, "duration": MILLISECONDS, "loop": 0}
    first.save(part, format="GIF", comment=description.encode(), **film)
    os.replace(part, path)
    return path


def _opaque(picture: Pillow.Image) -> Pillow.Image:
    """On white: a GIF's pixels are there or not, and words would fray."""
    return Pillow.alpha_composite(Pillow.new("RGBA", picture.size, WHITE), picture).convert("RGB")
