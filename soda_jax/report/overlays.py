"""Classes of pixels and points, drawn over the images that they belong to."""

import colorsys

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image as Pillow
from PIL import ImageDraw

SIDE = 192  # pixels that images are enlarged to, about, before points are drawn
GOLDEN = 0.61803398875  # of a turn: hues of neighbouring numbers lie far apart


def hues(count: int) -> UInt8[np.ndarray, "{count} 3"]:
    """Colours that are told apart."""
    turns = [(0.6 + i * GOLDEN) % 1 for i in range(count)]
    return np.array(
        [[round(255 * x) for x in colorsys.hsv_to_rgb(turn, 0.85, 0.95)] for turn in turns], np.uint8
    )


def painted(
    images: UInt8[np.ndarray, "b h w c"],
    classes: Int[np.ndarray, "b h w"] | UInt8[np.ndarray, "b h w"],
    count: int,
) -> UInt8[np.ndarray, "b h w 3"]:
    """Each pixel a quarter itself, the rest the colour of its class, black of class 0; what is no class as it is."""
    colours = np.concatenate([np.zeros((1, 3), np.uint8), hues(count - 1)])
    seen = np.broadcast_to(images, (*images.shape[:3], 3)).astype(np.int32)
    known = (classes < count)[..., None]
    mixed = (seen + 3 * colours[np.minimum(classes, count - 1)].astype(np.int32)) // 4
    return np.where(known, mixed, seen).astype(np.uint8)


def dotted(
    images: UInt8[np.ndarray, "b h w c"],
    points: Float[np.ndarray, "b k 2"],
    shown: Bool[np.ndarray, "b k"],
) -> UInt8[np.ndarray, "b h2 w2 3"]:
    """Enlarged images with a disc at each point (x, y) that is shown [b, k]; (0, 0) is the middle of a pixel."""
    times, colours = max(1, round(SIDE / images.shape[2])), hues(points.shape[1])
    return np.stack([_dots(*row, times, colours) for row in zip(images, points, shown, strict=True)])


def _dots(
    image: np.ndarray, points: np.ndarray, shown: np.ndarray, times: int, colours: np.ndarray
) -> np.ndarray:
    large = np.broadcast_to(image, (*image.shape[:2], 3)).repeat(times, 0).repeat(times, 1)
    picture = Pillow.fromarray(np.ascontiguousarray(large))
    draw, radius = ImageDraw.Draw(picture), max(2, large.shape[1] // 48)
    for (x, y), drawn, colour in zip((points + 0.5) * times - 0.5, shown, colours, strict=True):
        if drawn:
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=tuple(colour.tolist()), outline=(255, 255, 255))
    return np.asarray(picture)
