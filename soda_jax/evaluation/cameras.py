"""The cameras of a scene as one rig: where they look, which way is up, which two are near, and a walk around.

Cameras are camera-to-world matrices [R | o; 0 1] in the OpenCV convention (x right, y down, z forward): the columns of
R are r (right), -u (down) and d (the optical axis). All here is float64 on the host.

    centre   p   least  sum_i |(I - d_i d_i^T) (p - o_i)|^2                    (1)  nearest to all optical axes
    up       n   least  sum_i (r_i . n)^2,  |n| = 1,  n . mean u_i > 0         (2)  cameras that are held level agree
    orbit        [R | o] turned by an angle a about the line through p along n  (3)  height and distance stay

Where (2) leaves a choice, as where all r_i are parallel, the direction nearest to the mean of the u_i is taken; the
mean alone would lean forward in a rig that looks down on a scene from one side.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Cameras = Float[np.ndarray, "v 4 4"]
Camera = Float[np.ndarray, "4 4"]
Vector = Float[np.ndarray, "3"]
AGREED = 1e-3  # of the mean of (r . n)^2: directions that are level to within this count as equally good
HALF_TURN = np.pi


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What (1) and (2) find."""

    centre: Vector
    up: Vector

    def angles(self, cameras: Cameras, first: Camera) -> Float[np.ndarray, " v"]:
        """How far each camera is turned about (3) from the first, radians in (-pi, pi]; from above, anticlockwise."""
        east = self._level(np.asarray(first, np.float64)[:3, 3] - self.centre)
        away = self._level(np.asarray(cameras, np.float64)[:, :3, 3] - self.centre)
        return np.arctan2(away @ np.cross(self.up, east), away @ east)

    def turned(self, camera: Camera, angle: float) -> Camera:
        """(3)."""
        x, y, z = self.up
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
        made = np.eye(4)
        made[:3, :3] = turn @ camera[:3, :3]
        made[:3, 3] = self.centre + turn @ (camera[:3, 3] - self.centre)
        return made

    def orbit(self, cameras: Cameras, start: Camera, frames: int) -> Float[np.ndarray, "{frames} 4 4"]:
        """The start turned about the scene, as a film without an end.

        Once round; where all cameras stand within half a turn, to and fro over the arc that they cover, for nobody has
        seen the scene from behind.
        """
        found = self.angles(cameras, start)
        low, high = arc(found)
        phase = 2 * np.pi * np.arange(frames) / frames
        swing = (low + high) / 2 - (high - low) / 2 * np.cos(phase)
        angles = phase if high - low > HALF_TURN else swing
        return np.stack([self.turned(start, angle) for angle in angles])

    def _level(self, vectors: np.ndarray) -> np.ndarray:
        return vectors - (vectors @ self.up)[..., None] * self.up


def rig_of(cameras: Cameras) -> Rig:
    """(1) and (2) of the cameras of a scene."""
    cameras = np.asarray(cameras, np.float64)
    return Rig(centre=centre_of(cameras), up=up_of(cameras))


def centre_of(cameras: Cameras) -> Vector:
    """(1). Parallel axes meet nowhere: then as far before the cameras as these stand apart, or 1 for a single one."""
    o, d = cameras[:, :3, 3], cameras[:, :3, 2]
    across = np.eye(3) - d[:, :, None] * d[:, None, :]
    middle, axis = o.mean(0), d.mean(0)
    offset = np.einsum("vij,vj->i", across, o - middle) / len(o)
    shift, _, rank, _ = np.linalg.lstsq(across.mean(0), offset, rcond=1e-6)
    apart = np.linalg.norm(o - middle, axis=1).max() * 2 or 1.0
    return middle + (shift if rank == 3 else shift + apart * axis / np.linalg.norm(axis))


def up_of(cameras: Cameras) -> Vector:
    """(2)."""
    r, u = cameras[:, :3, 0], -cameras[:, :3, 1]
    values, vectors = np.linalg.eigh(r.T @ r / len(r))
    level = vectors[:, values <= values[0] + AGREED]
    n = level @ (level.T @ u.mean(0))
    return n / np.linalg.norm(n)


def arc(angles: Float[np.ndarray, " v"]) -> tuple[float, float]:
    """(low, high) of the shortest arc that holds all angles, radians in (-pi, pi]; low may lie below -pi."""
    found = np.sort(angles)
    gaps = np.diff(found, append=found[0] + 2 * np.pi)
    last = int(np.argmax(gaps))  # the arc ends before the widest gap
    low, high = found[(last + 1) % len(found)], found[last]
    return float(low - 2 * np.pi if low > high else low), float(high)


def nearest_view(sources: Cameras, target: Camera) -> int:
    """Which source looks most in the direction of the target: least angle between the optical axes, then distance."""
    aside = 1 - sources[:, :3, 2] @ target[:3, 2]
    distance = np.linalg.norm(sources[:, :3, 3] - target[:3, 3], axis=1)
    return int(np.lexsort((distance, np.round(aside, 6)))[0])
