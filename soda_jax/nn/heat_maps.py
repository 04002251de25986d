"""Points as heat maps, and back (arXiv 1804.06208 and 1902.09212 decode as (2) does).

A point p = (x, y) of an image of `size` pixels, (0, 0) the centre of the first, lies in a map of h pixels at

    q     = (p + 1/2) h / size - 1/2                                                                    (1)
    H(u)  = exp(-|u - q|^2 / (2 sigma^2)),  sigma in pixels of the map                                  (2)

and is found in a map, by its largest value at m, as

    quarter   m + 1/4 sign(H(m + e) - H(m - e)) along each axis e, where both neighbours exist          (3)
    soft      sum_u w(u) u / sum_u w(u),  w = max(H, 0) within `radius` of m along each axis            (4)

The window of (4) cuts tails, which draws points towards m: with sigma and radius of 2 and 4 by less than 0.08 pixels.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Points = Float[Array, "b k 2"]
Maps = Float[Array, "b h w k"]
Decoding = Literal["quarter", "soft"]
RADIUS = 4  # pixels of a map: two sigma of the usual 2


def to_map(points: Points, side: int, size: int) -> Points:
    """(1)."""
    return (points + 0.5) * (side / size) - 0.5


def to_image(points: Points, side: int, size: int) -> Points:
    """The inverse of (1)."""
    return (points + 0.5) * (size / side) - 0.5


def heat_maps(points: Points, side: int, sigma: float) -> Float[Array, "b {side} {side} k"]:
    """(2) of points in pixels of the map."""
    line = jnp.arange(side, dtype=jnp.float32)
    apart = line[None, :, None, None] - points[:, None]  # [b, side, k, 2]
    x, y = (jnp.exp(-jnp.square(apart[..., axis]) / (2 * sigma**2)) for axis in (0, 1))
    return y[:, :, None] * x[:, None, :]


def decode(maps: Maps, how: Decoding = "soft", radius: int = RADIUS) -> Points:
    """(3) or (4): points in pixels of the map."""
    b, h, w, k = maps.shape
    peak = jnp.argmax(maps.reshape(b, h * w, k), axis=1)
    peak = jnp.stack([peak % w, peak // w], -1)  # [b, k, 2]
    return _quarter(maps, peak) if how == "quarter" else _soft(maps, peak, radius)


def _quarter(maps: Maps, peak: Array) -> Points:
    shifts = []
    for axis, size in ((0, maps.shape[2]), (1, maps.shape[1])):
        step = jnp.zeros(2, peak.dtype).at[axis].set(1)[None, None]
        slope = _at(maps, peak + step) - _at(maps, peak - step)
        inside = (peak[..., axis] > 0) & (peak[..., axis] < size - 1)
        shifts.append(jnp.where(inside, 0.25 * jnp.sign(slope), 0.0))
    return peak + jnp.stack(shifts, -1)


def _at(maps: Maps, places: Array) -> Float[Array, "b k"]:
    """Values at places [b, k, 2], which are (x, y); the nearest ones for those outside."""
    b, h, w, k = maps.shape
    x, y = jnp.clip(places[..., 0], 0, w - 1), jnp.clip(places[..., 1], 0, h - 1)
    return jnp.take_along_axis(maps.reshape(b, h * w, k), (y * w + x)[:, None], axis=1)[:, 0]


def _soft(maps: Maps, peak: Array, radius: int) -> Points:
    h, w = maps.shape[1:3]
    x, y = (jnp.arange(n)[None, :, None] - peak[:, None, :, axis] for n, axis in ((w, 0), (h, 1)))
    near = (jnp.abs(y) <= radius)[:, :, None] & (jnp.abs(x) <= radius)[:, None]  # [b, h, w, k]
    weight = jnp.where(near, jnp.maximum(maps, 0.0), 0.0)
    total = jnp.maximum(weight.sum((1, 2)), 1e-12)
    shift = jnp.stack([(weight.sum(1) * x).sum(1), (weight.sum(2) * y).sum(1)], -1)  # from the peak
    return peak + shift / total[..., None]
