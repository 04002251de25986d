"""The solids of views3d as signed distance functions.

A point is three float32 arrays (x, y, z) in the solid's own frame: z up, the solid resting on z = 0. Every
function has slope at most 1, so that stepping by its value never passes the surface. Edges are rounded: with

    smax(a, b) = (a + b + sqrt((a - b)^2 + EDGE^2)) / 2        (1)

in place of max, whose gradient is a mean of those of a and b.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

EDGE = np.float32(0.06)
_HALF, _ONE = np.float32(0.5), np.float32(1.0)

Distance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Solid:
    """A distance function and a sphere around the solid: centre (0, 0, middle)."""

    distance: Distance
    middle: float
    radius: float
    convex: bool = True  # then it casts no shadow on itself


def smax(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(1)."""
    difference = a - b
    return (a + b + np.sqrt(difference * difference + EDGE * EDGE)) * _HALF


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _box2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance from the offsets a, b to the two sides of a rounded corner (negative inside both)."""
    outside = _length(np.maximum(a, 0), np.maximum(b, 0))
    return outside + np.minimum(np.maximum(a, b), 0)


def cube(x, y, z):
    """Side 1.24, edges rounded by 0.1."""
    a, b, c = (np.abs(v) - np.float32(0.52) for v in (x, y, z - np.float32(0.62)))
    inside = np.minimum(np.maximum(np.maximum(a, b), c), 0)
    a, b, c = np.maximum(a, 0), np.maximum(b, 0), np.maximum(c, 0)
    return np.sqrt(a * a + b * b + c * c) + inside - np.float32(0.1)


def sphere(x, y, z):
    """Radius 0.78."""
    z = z - np.float32(0.78)
    return np.sqrt(x * x + y * y + z * z) - np.float32(0.78)


def cylinder(x, y, z):
    """Upright, radius 0.6, height 1.4, rims rounded by 0.08."""
    return _box2(
        _length(x, y) - np.float32(0.52), np.abs(z - np.float32(0.7)) - np.float32(0.62)
    ) - np.float32(0.08)


def cone(x, y, z):
    """Upright, base radius about 0.8, height about 1.55."""
    slant = _length(x, y) * np.float32(0.9) + (z - np.float32(1.56)) * np.float32(0.436)
    return smax(slant, -z)


def torus(x, y, z):
    """A ring standing on its rim, hole along x; radius 0.53, tube 0.25."""
    ring = _length(y, z - np.float32(0.78)) - np.float32(0.53)
    return _length(ring, x) - np.float32(0.25)


def octahedron(x, y, z):
    """Standing on a corner that is cut by the floor, so that it rests; corners about 0.83 from the middle."""
    total = sum(np.sqrt(v * v + EDGE * EDGE) for v in (x, y, z - np.float32(0.64)))
    return smax((total - np.float32(0.93)) * np.float32(0.57735), -z)


def prism(x, y, z):
    """A triangular prism lying like a tent, ridge along y."""
    roof = (np.sqrt(x * x + EDGE * EDGE) * np.float32(0.866)) + (z - np.float32(1.35)) * np.float32(0.5)
    return smax(smax(roof, -z), np.abs(y) - np.float32(0.62))


def pill(x, y, z):
    """A capsule lying along x."""
    along = np.maximum(np.abs(x) - np.float32(0.5), 0)
    z = z - np.float32(0.48)
    return np.sqrt(along * along + y * y + z * z) - np.float32(0.48)


SOLIDS = {
    "cube": Solid(cube, 0.62, 1.02),
    "sphere": Solid(sphere, 0.78, 0.8),
    "cylinder": Solid(cylinder, 0.7, 0.92),
    "cone": Solid(cone, 0.55, 1.02),
    "torus": Solid(torus, 0.78, 0.80, convex=False),
    "octahedron": Solid(octahedron, 0.64, 0.85),
    "prism": Solid(prism, 0.6, 1.1),
    "pill": Solid(pill, 0.48, 1.02),
}
