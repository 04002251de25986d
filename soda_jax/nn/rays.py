"""Rays through the pixels of the target, as the source's camera sees them: they tell a denoiser which view to paint.

Cameras are in the OpenCV convention (x right, y down, z forward) as camera-to-world matrices [R | o; 0 1].
Intrinsics K are those of an image whose sides have length 1, (0, 0) its upper left corner, so that they hold at any
resolution.

    [R | o] = [R_s | o_s]^-1 [R_t | o_t]                     (1)  the target's camera in the frame of the source's
    d(u, v) = R K^-1 (u, v, 1) / |K^-1 (u, v, 1)|            (2)  direction of the ray through (u, v), unit length
    concat    [d, o / s]                                     (3)  SODA (arXiv 2311.17901), appendix G.3
    moment    [d, o x d / s]                                 (4)  Pluecker coordinates: whichever point o of the ray

s is the length, in units of the world, that counts as 1. A rigid motion of all cameras changes nothing, by (1).
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from soda_jax.types import Batch

Kind = Literal["concat", "moment"]
View = Float[Array, "b h w 6"]  # a ray a pixel
CAMERAS = ("source_camera", "target_camera", "intrinsics")  # [b, 4, 4], [b, 4, 4], [b, 3, 3], all float32


@dataclass(frozen=True, kw_only=True)
class Rays:
    """(3) or (4) as channels of an image. ValueError for a scale that is not positive."""

    kind: Kind = "moment"
    scale: float = 1.0
    channels = 6

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"model.ray_scale must be more than 0, found {self.scale}")

    def __call__(self, cameras: Batch, height: int, width: int) -> Float[Array, "b {height} {width} 6"]:
        """One ray through the middle of each pixel of the target; cameras: a mapping that holds CAMERAS.

        Raises ValueError if one of them is not there.
        """
        missing = [name for name in CAMERAS if name not in cameras]
        if missing:
            raise ValueError(
                f"model.rays={self.kind!r} asks for cameras, and the batch has no {', '.join(missing)}"
            )
        camera = relative(cameras["source_camera"], cameras["target_camera"])
        d = directions(camera, cameras["intrinsics"], height, width)
        o = jnp.broadcast_to(camera[:, None, None, :3, 3], d.shape) / self.scale
        return jnp.concatenate([d, jnp.cross(o, d) if self.kind == "moment" else o], -1)


def relative(first: Float[Array, "b 4 4"], other: Float[Array, "b 4 4"]) -> Float[Array, "b 4 4"]:
    """(1): `other` in the frame of `first`. Both are rigid, so that the inverse is a transpose."""
    turned = jnp.swapaxes(first[:, :3, :3], 1, 2)
    rotation = turned @ other[:, :3, :3]
    origin = turned @ (other[:, :3, 3:] - first[:, :3, 3:])
    return jnp.concatenate([jnp.concatenate([rotation, origin], -1), other[:, 3:]], 1)


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
    d = jnp.einsum("bij,bhwj->bhwi", camera[:, :3, :3], jnp.stack([x, y, jnp.ones_like(x)], -1))
    return d / jnp.linalg.norm(d, axis=-1, keepdims=True)
