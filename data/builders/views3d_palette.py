"""Colours of views3d: eight hues named in OKLCH (B. Ottosson 2020), for solids (strong) and surfaces (pale).

OKLCH (lightness L, chroma C, hue h) -> OKLab a = C cos h, b = C sin h -> cube roots of cone responses ->
linear sRGB; the two matrices are the published ones.
"""

import numpy as np

# name -> lightness, chroma, hue in degrees, where each is at its most typical
HUES = {
    "red": (0.60, 0.21, 26),
    "orange": (0.72, 0.18, 55),
    "yellow": (0.86, 0.17, 95),
    "green": (0.68, 0.18, 145),
    "teal": (0.74, 0.12, 192),
    "blue": (0.58, 0.18, 256),
    "violet": (0.55, 0.19, 300),
    "pink": (0.74, 0.16, 350),
}

_LAB_TO_ROOTS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_CODES = np.arange(4097) / 4096


def linear_rgb(lightness: float, chroma: float, hue_degrees: float) -> np.ndarray:
    """OKLCH to linear sRGB [3] float32 in 0..1 (colours outside the gamut are clipped)."""
    angle = np.deg2rad(hue_degrees)
    roots = _LAB_TO_ROOTS @ np.array([lightness, chroma * np.cos(angle), chroma * np.sin(angle)])
    return np.clip(_CONES_TO_RGB @ roots**3, 0.0, 1.0).astype(np.float32)


def strong() -> np.ndarray:
    """The hues for solids, linear sRGB [8, 3]."""
    return np.stack([linear_rgb(*hue) for hue in HUES.values()])


def pale(lightness: float, chroma: float) -> np.ndarray:
    """The hues for floors and walls, linear sRGB [8, 3]: about one lightness, `chroma` of the strength."""
    return np.stack(
        [linear_rgb(lightness + 0.15 * (own - 0.68), chroma * c, hue) for own, c, hue in HUES.values()]
    )


def _srgb_curve(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


_SRGB = np.rint(255 * _srgb_curve(_CODES)).astype(np.uint8)  # a table: the power is slow


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in 0..1 (clipped) to uint8 sRGB, same shape."""
    return _SRGB[(np.clip(linear, 0.0, 1.0) * 4096 + 0.5).astype(np.int16)]
