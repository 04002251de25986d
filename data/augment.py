"""The two augmentations of SODA's views: random resized crop with flip, and RandAugment (arXiv:1909.13719).

Images are uint8, `[h, w]` (grey) or `[h, w, 3]` (RGB); every function returns an image of the same kind.
All randomness comes from `rng.random()` of whatever is passed in. RandAugment has torchvision's 14 operations
and strengths: magnitude m of 0..30. With u = m / 30 and a random sign where it says +-:

    shear        x += (+-0.3 u) y           rotate    +-30 u degrees
    translate    +-(150/331) u w pixels     brightness, colour, contrast, sharpness    blend by 1 +- 0.9 u
    posterize    keep 8 - round(4 u) bits   solarize  invert from 255 (1 - u) up
    autocontrast, equalize, identity        no strength

Unlike torchvision, geometry is interpolated linearly (its default takes the nearest pixel); what comes from
outside of the image is black there and here.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from data.boxes import Box, middle, part_of, square

# OpenCV's own threads would fight XLA for the cores; the pipeline has threads and workers of its own.
cv2.setNumThreads(0)

BINS = 31
CROP_TRIES = 10
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


class Uniform(Protocol):
    """What draws: an `np.random.Generator`, or `data.draws.Tape`, which is faster."""

    def random(self) -> float:
        """The next number, uniform in [0, 1)."""


def uniform(rng: Uniform, low: float, high: float) -> float:
    """One float in [low, high)."""
    return low + (high - low) * rng.random()


def draw_below(rng: Uniform, n: int) -> int:
    """One integer in 0..n-1; the bias is below n / 2^53."""
    return int(n * rng.random())


# Crop -------------------------------------------------------------------------------------------------


def random_box(
    rng: Uniform, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A box whose share of the area is uniform in `scale` and whose width / height is log-uniform in `ratio`.

    Boxes that do not fit are drawn again, ten times; after that it is the largest fitting box in the middle.
    """
    for _ in range(CROP_TRIES):
        area = height * width * uniform(rng, *scale)
        aspect = math.exp(uniform(rng, math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(draw_below(rng, height - h + 1), draw_below(rng, width - w + 1), h, w)
    return _middle_box(height, width, ratio)


def _middle_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return middle(height, width, h, w)


def resized_crop(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The box, scaled to `size` x `size`: linearly, after averaging where it is shrunk to half or less."""
    part = part_of(image, box)
    down, right = max(1, box.height // size), max(1, box.width // size)
    if down > 1 or right > 1:
        part = _block_means(part, down, right)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)


def _block_means(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Means of blocks of down x right pixels: 2 to 6 times as fast as OpenCV's averaging over other areas."""
    height, width = image.shape[0] // down, image.shape[1] // right
    whole = image[: height * down, : width * right]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def padded_crop(rng: Uniform, image: np.ndarray, pad: int) -> np.ndarray:
    """As large a part of the image with `pad` pixels of black on each side, anywhere in it."""
    height, width = image.shape[:2]
    wide = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    top, left = draw_below(rng, 2 * pad + 1), draw_below(rng, 2 * pad + 1)
    return np.ascontiguousarray(wide[top : top + height, left : left + width])


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The largest square in the middle, scaled to `size` x `size`. No copy if it has that size already."""
    height, width = image.shape[:2]
    return image if height == width == size else resized_crop(image, square(height, width), size)


def flip(image: np.ndarray) -> np.ndarray:
    """Left to right."""
    return cv2.flip(image, 1)


# Geometry ---------------------------------------------------------------------------------------------


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Output (x, y) is input matrix (x, y, 1). Four channels take OpenCV half of the time of three."""
    if image.ndim == 2:
        return cv2.warpAffine(image, matrix, image.shape[::-1], flags=_WARP)
    warped = cv2.warpAffine(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), matrix, image.shape[1::-1], flags=_WARP)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def shear_x(image: np.ndarray, level: float) -> np.ndarray:
    """Rows slide by level x y pixels."""
    return _warp(image, np.array([[1.0, level, 0], [0, 1, 0]]))


def shear_y(image: np.ndarray, level: float) -> np.ndarray:
    """Columns slide by level x x pixels."""
    return _warp(image, np.array([[1.0, 0, 0], [level, 1, 0]]))


def translate_x(image: np.ndarray, share: float) -> np.ndarray:
    """Moves right by the whole pixels in share x width."""
    moved, pixels, width = np.zeros_like(image), int(share * image.shape[1]), image.shape[1]
    moved[:, max(pixels, 0) : width + pixels] = image[:, max(-pixels, 0) : width - pixels]
    return moved


def translate_y(image: np.ndarray, share: float) -> np.ndarray:
    """Moves down by the whole pixels in share x height."""
    moved, pixels, height = np.zeros_like(image), int(share * image.shape[0]), image.shape[0]
    moved[max(pixels, 0) : height + pixels] = image[max(-pixels, 0) : height - pixels]
    return moved


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turns counter-clockwise about the middle."""
    height, width = image.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    return _warp(image, cv2.getRotationMatrix2D(middle, -degrees, 1.0))


# Colour -----------------------------------------------------------------------------------------------


def _table(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1024)
def _blend_table(factor: float, degenerate: int) -> np.ndarray:
    return _table(degenerate + factor * (np.arange(256.0) - degenerate))


@lru_cache(maxsize=256)
def _solarize_table(threshold: float) -> np.ndarray:
    levels = np.arange(256)
    return _table(np.where(levels < threshold, levels, 255 - levels))


@lru_cache(maxsize=1024)
def _stretch_table(low: int, high: int) -> np.ndarray:
    return _table((np.arange(256.0) - low) * (255 / max(high - low, 1)))


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _per_channel(operation: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    return operation(image) if image.ndim == 2 else cv2.merge([operation(p) for p in cv2.split(image)])


def identity(image: np.ndarray, _: float) -> np.ndarray:
    """The image itself."""
    return image


def brightness(image: np.ndarray, change: float) -> np.ndarray:
    """Blends with black: change -1 is black, 0 leaves it."""
    return cv2.LUT(image, _blend_table(1 + change, 0))


def contrast(image: np.ndarray, change: float) -> np.ndarray:
    """Blends with the image's mean grey."""
    return cv2.LUT(image, _blend_table(1 + change, int(cv2.mean(_grey(image))[0] + 0.5)))


def colour(image: np.ndarray, change: float) -> np.ndarray:
    """Blends with the grey image; a grey image stays as it is."""
    if image.ndim == 2:
        return image
    grey = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, 1 + change, grey, -change, 0)


def sharpness(image: np.ndarray, change: float) -> np.ndarray:
    """Blends with the smoothed image, as one 3 x 3 filter."""
    kernel = -change * _SMOOTH
    kernel[1, 1] += 1 + change
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """Keeps the highest bits of every value."""
    return image & np.uint8(256 - (1 << (8 - int(bits))))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts the values from the threshold up."""
    return cv2.LUT(image, _solarize_table(threshold))


def _stretch(plane: np.ndarray) -> np.ndarray:
    low, high, _, _ = cv2.minMaxLoc(plane)
    return cv2.LUT(plane, _stretch_table(int(low), int(high))) if high > low else plane


def autocontrast(image: np.ndarray, _: float) -> np.ndarray:
    """Stretches each channel to 0..255."""
    return _per_channel(_stretch, image)


def _equalize(plane: np.ndarray) -> np.ndarray:
    counts = np.bincount(plane.ravel(), minlength=256)
    step = (plane.size - counts[plane.max()]) // 255
    if step == 0:
        return plane
    below = np.cumsum(counts) - counts
    return cv2.LUT(plane, np.minimum((below + step // 2) // step, 255).astype(np.uint8))


def equalize(image: np.ndarray, _: float) -> np.ndarray:
    """Makes each channel's histogram flat."""
    return _per_channel(_equalize, image)


# RandAugment ------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """`apply(image, strength(u))` with u = magnitude / 30; `signed` ones are negated half of the time."""

    apply: Callable[[np.ndarray, float], np.ndarray]
    strength: Callable[[float], float] = float
    signed: bool = False


OPERATIONS = (
    Operation(identity),
    Operation(shear_x, lambda u: 0.3 * u, True),
    Operation(shear_y, lambda u: 0.3 * u, True),
    Operation(translate_x, lambda u: 150 / 331 * u, True),
    Operation(translate_y, lambda u: 150 / 331 * u, True),
    Operation(rotate, lambda u: 30 * u, True),
    Operation(brightness, lambda u: 0.9 * u, True),
    Operation(colour, lambda u: 0.9 * u, True),
    Operation(contrast, lambda u: 0.9 * u, True),
    Operation(sharpness, lambda u: 0.9 * u, True),
    Operation(posterize, lambda u: 8 - round(4 * u)),
    Operation(solarize, lambda u: 255 * (1 - u)),
    Operation(autocontrast),
    Operation(equalize),
)


def rand_augment(image: np.ndarray, rng: Uniform, ops: int, magnitude: int) -> np.ndarray:
    """`ops` operations drawn with replacement, all of strength `magnitude` (0..30)."""
    for _ in range(ops):
        operation = OPERATIONS[draw_below(rng, len(OPERATIONS))]
        strength = operation.strength(magnitude / (BINS - 1))
        image = operation.apply(image, -strength if operation.signed and rng.random() < 0.5 else strength)
    return image
