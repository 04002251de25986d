"""Rays through the pixels of a view, as the first source's camera sees them or in the world's own frame: they tell a
network what it looks at.

Cameras are in the OpenCV convention (x right, y down, z forward) as camera-to-world matrices [R | o; 0 1].
Intrinsics K are those of an image whose sides have length 1, (0, 0) its upper left corner, so that they hold at any
resolution.

    [R | o] = [R_s | o_s]^-1 [R_t | o_t]                     (1)  a camera in the frame of the first source's; in that
                                                                  of the world [R_t | o_t]; or both, side by side
    d(u, v) = R K^-1 (u, v, 1) / |K^-1 (u, v, 1)|            (2)  direction of the ray through (u, v), unit length
    concat       [d, o / s]                                  (3)  SODA (arXiv 2311.17901), appendix G.3
    moment       [d, o x d / s]                              (4)  Pluecker coordinates: whichever point o of the ray
    sphere       o / s + s_d d                               (5)  the point at distance s_d, G.3
    unit_sphere  [atan2(p_x, p_z), asin(-p_y)] / pi          (6)  azimuth and elevation of the point p below, G.3
    p = o / s + a d,  a the smaller positive root of a^2 + 2 a <o, d> / s + |o|^2 / s^2 - 1 = 0       (7)
    sinusoidal   cos(omega_k r), sin(omega_k r),  omega_k as in embed.py with its s = 1e-4            (8)
    octaves      cos(2^k pi r), sin(2^k pi r),  k = 0 .. K-1 (arXiv 2003.08934)                       (9)

s is the length, in units of the world, that counts as 1. A rigid motion of all cameras changes nothing, by (1). In the
world's frame it does: that is for scenes that share a place, such as objects that stand upright at the origin, which a
network then needn't find anew from where each source was taken. With both, it is also told how the target's camera
stands to the source's: an encoder that sees an image alone cannot say how an object is turned in the world, but can say
how it is turned before its own camera. The sphere of (7) stands around the first source's
camera, or the world's origin. A ray that misses it, or leaves from outside and points away,
has no such root: p is then its point nearest to the centre (with a >= 0), moved onto the sphere, so that p does not
jump where a ray begins to miss.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.conv import Conv
from soda_jax.nn.embed import sinusoid
from soda_jax.types import Batch

Kind = Literal["concat", "moment", "sphere", "unit_sphere"]
Frame = Literal["source", "world", "both"]
Encoding = Literal["none", "sinusoidal", "octaves"]
View = Float[Array, "b h w r"]  # a ray a pixel, in r channels
COORDINATES = {"concat": 6, "moment": 6, "sphere": 3, "unit_sphere": 2}
CAMERAS = (
    "source_camera",
    "target_camera",
    "intrinsics",
)  # [b, (v,) 4, 4], [b, 4, 4], [b, 3, 3], all float32
SLOWEST = 1e-4  # s of (8)

# The matrix units of accelerators would round poses to bfloat16.
einsum = partial(jnp.einsum, precision="highest")


@dataclass(frozen=True, kw_only=True)
class Rays:
    """(3) to (6), as they are or encoded by (8) or (9), as channels of an image.

    frame: whether cameras are moved by (1), "source", or taken as they are, "world"; or "both", in this order: world,
    source.
    scale: s. radius: s_d of (5). frequencies: K of (8) and (9), for each coordinate.
    ValueError, with the key, for a number that is not positive.
    """

    kind: Kind = "moment"
    frame: Frame = "source"
    scale: float = 1.0
    radius: float = 1.0
    encoding: Encoding = "none"
    frequencies: int = 8

    def __post_init__(self):
        for key in ("scale", "radius", "frequencies"):
            if not getattr(self, key) > 0:
                raise ValueError(f"model.ray_{key} must be more than 0, found {getattr(self, key)}")

    @property
    def channels(self) -> int:
        """How many channels a ray has."""
        coordinates = COORDINATES[self.kind] * (2 if self.frame == "both" else 1)
        return coordinates * (1 if self.encoding == "none" else 2 * self.frequencies)

    def __call__(self, cameras: Batch, height: int, width: int) -> Float[Array, "b {height} {width} r"]:
        """One ray through the middle of each pixel of the target; cameras: a mapping that holds CAMERAS.

        Raises ValueError if one of them is not there.
        """
        self.check(cameras)
        return self.seen_from(
            sources(cameras)[:, 0], cameras["target_camera"], cameras["intrinsics"], height, width
        )

    def of_sources(self, cameras: Batch, height: int, width: int) -> Float[Array, "b v {height} {width} r"]:
        """The same of each source."""
        self.check(cameras)
        every, intrinsics = sources(cameras), cameras["intrinsics"]
        b, v = every.shape[:2]
        first = jnp.broadcast_to(every[:, :1], every.shape).reshape(b * v, 4, 4)
        rays = self.seen_from(
            first, every.reshape(b * v, 4, 4), jnp.repeat(intrinsics, v, axis=0), height, width
        )
        return rays.reshape(b, v, *rays.shape[1:])

    def seen_from(
        self,
        first: Float[Array, "b 4 4"],
        camera: Float[Array, "b 4 4"],
        intrinsics: Float[Array, "b 3 3"],
        height: int,
        width: int,
    ) -> Float[Array, "b {height} {width} r"]:
        """The rays of a camera in the frame that they are given in, or in both, encoded."""
        placed = [camera] if self.frame in ("world", "both") else []
        placed += [relative(first, camera)] if self.frame in ("source", "both") else []
        return self.encoded(
            jnp.concatenate([self.through(one, intrinsics, height, width) for one in placed], -1)
        )

    def check(self, cameras: Batch) -> None:
        """Raises ValueError if one of CAMERAS is not there."""
        missing = [name for name in CAMERAS if name not in cameras]
        if missing:
            raise ValueError(
                f"model.rays={self.kind!r} asks for cameras, and the batch has no {', '.join(missing)}"
            )

    def through(
        self, camera: Float[Array, "b 4 4"], intrinsics: Float[Array, "b 3 3"], height: int, width: int
    ) -> Float[Array, "b {height} {width} r"]:
        """The rays of a camera in the frame of (1), not yet encoded."""
        d = directions(camera, intrinsics, height, width)
        o = jnp.broadcast_to(camera[:, None, None, :3, 3], d.shape) / self.scale
        return self.coordinates(o, d)

    def coordinates(self, o: Float[Array, "b h w 3"], d: Float[Array, "b h w 3"]) -> View:
        """(3) to (6); o in units of s."""
        if self.kind == "sphere":
            return o + self.radius * d
        if self.kind == "unit_sphere":
            return angles(on_unit_sphere(o, d))
        return jnp.concatenate([d, jnp.cross(o, d) if self.kind == "moment" else o], -1)

    def encoded(self, r: View) -> Float[Array, "b h w {self.channels}"]:
        """(8) or (9), all waves of the first coordinate before those of the second, cosines before sines."""
        if self.encoding == "none":
            return r
        if self.encoding == "sinusoidal":
            waves = sinusoid(r, 2 * self.frequencies, SLOWEST)
        else:
            angle = r[..., None] * (math.pi * 2.0 ** jnp.arange(self.frequencies))[None, None, None, None]
            waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
        return waves.reshape(*r.shape[:3], -1)


def sources(cameras: Batch) -> Float[Array, "b v 4 4"]:
    """The cameras of the sources, also where there is one of each example."""
    found = cameras["source_camera"]
    return found if found.ndim == 4 else found[:, None]


def alone(lens: tuple[float, float, float, float], count: int) -> Batch:
    """CAMERAS of images [b, ...] that are looked at by themselves; lens: fx, fy, cx, cy in sides of the image."""
    fx, fy, cx, cy = lens
    matrices = {"source_camera": jnp.eye(4), "target_camera": jnp.eye(4)}
    matrices["intrinsics"] = jnp.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], jnp.float32)
    return {name: jnp.broadcast_to(x, (count, *x.shape)) for name, x in matrices.items()}


def relative(first: Float[Array, "b 4 4"], other: Float[Array, "b 4 4"]) -> Float[Array, "b 4 4"]:
    """(1): `other` in the frame of `first`. Both are rigid, so that the inverse is a transpose."""
    turned = jnp.swapaxes(first[:, :3, :3], 1, 2)
    moved = other[:, :3].at[:, :, 3].add(-first[:, :3, 3])
    return jnp.concatenate([einsum("bij,bjk->bik", turned, moved), other[:, 3:]], 1)


def directions(
    camera: Float[Array, "b 4 4"], intrinsics: Float[Array, "b 3 3"], height: int, width: int
) -> Float[Array, "b {height} {width} 3"]:
    """(2) of the middle of each pixel."""
    u, v = jnp.meshgrid((jnp.arange(width) + 0.5) / width, (jnp.arange(height) + 0.5) / height)
    fx, skew, cx, fy, cy = (
        intrinsics[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2))
    )
    y = (v[None] - cy) / fy  # K^-1 written out, for it is triangular
    x = (u[None] - cx - skew * y) / fx
    d = einsum("bij,bhwj->bhwi", camera[:, :3, :3], jnp.stack([x, y, jnp.ones_like(x)], -1))
    return d / jnp.linalg.norm(d, axis=-1, keepdims=True)


def on_unit_sphere(o: Float[Array, "b h w 3"], d: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """p of (7), or what stands for it where there is none."""
    middle = -jnp.sum(o * d, -1, keepdims=True)
    square = 1 - jnp.sum(jnp.square(o + middle * d), -1, keepdims=True)  # of half the chord; a miss has none
    half = jnp.sqrt(jnp.maximum(square, 0.0))
    near, far = middle - half, middle + half
    p = o + jnp.where(near > 0, near, jnp.maximum(far, 0.0)) * d
    return p / jnp.linalg.norm(p, axis=-1, keepdims=True)


def angles(p: Float[Array, "b h w 3"]) -> Float[Array, "b h w 2"]:
    """(6): in half turns; 0 is straight ahead, right and up are positive."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    return jnp.stack([jnp.arctan2(x, z), jnp.arcsin(jnp.clip(-y, -1.0, 1.0))], -1) / math.pi


class Projecting(nn.Module):
    """A network that sees [W x, rays] in the place of [x, rays]: `features` linear mixtures of the image's channels.

    channels: of the image x; those behind them are rays. Whatever else the network takes is handed on.
    """

    network: nn.Module
    channels: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *rest, **named):
        mix = Conv(self.features, kernel=1, dtype=self.dtype, use_bias=False, name="rgb")
        image, rays = x[..., : self.channels], x[..., self.channels :]
        return self.network(jnp.concatenate([mix(image), rays.astype(self.dtype)], -1), *rest, **named)

    @property
    def latent_dim(self) -> int:
        """Of an encoder."""
        return self.network.latent_dim

    @property
    def last_map(self) -> str:
        """Of an encoder."""
        return self.network.last_map

    @property
    def sections(self) -> int:
        """Of a denoiser."""
        return self.network.sections
