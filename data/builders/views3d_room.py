"""The room of views3d: floor, wall, and the shadow of the solid, in linear light.

Shaded at pixel centres, with the join of floor and wall weighted by how much of a pixel each covers. The
shadow does not depend on the camera, so it is a map of the floor, made once a scene. Its soft edge: with the
distance function d along the way to the lamp,

    light = min over t of SHARPNESS d(t) / t, clipped to 0..1        (1)
"""

import dataclasses

import cv2
import numpy as np

from data.builders import views3d_cameras as cam
from data.builders.views3d_solids import Solid

LAMP = np.array([-0.50, -0.52, 0.69], np.float32) / np.linalg.norm(np.array([-0.50, -0.52, 0.69], np.float32))
KEY, AMBIENT = np.float32(0.78), np.float32(0.36)
SHARPNESS = np.float32(5.0)
_CELLS, _HALF = 96, 2.6  # the shadow map covers [-half, half]^2 of the floor
_JOIN = 0.45  # how far the join's dimness reaches, world units
_CENTRES = cam.pixel_rays(np.zeros((1, 2)))[..., 0]


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is in the room. Colours are linear RGB [3] float32."""

    solid: Solid
    scale: float
    yaw: float  # radians, anticlockwise from above
    colour: np.ndarray
    floor: np.ndarray
    wall: np.ndarray

    def to_local(self) -> np.ndarray:
        """Rotation [3, 3] of world vectors into the solid's frame; points are also divided by scale."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)


def room(scene: Scene, camera_to_world: np.ndarray, shadows: np.ndarray) -> np.ndarray:
    """Linear RGB [3, v, SIDE^2] of floor and wall from cameras [v, 4, 4]."""
    rays = np.moveaxis(camera_to_world[:, :3, :3] @ _CENTRES, 0, 1)  # [3, v, n]
    origin = camera_to_world[:, :3, 3].T[:, :, None]
    to_floor = -origin[2] / np.minimum(rays[2], np.float32(-1e-3))
    to_wall = (np.float32(cam.WALL) - origin[1]) / np.maximum(rays[1], np.float32(1e-3))
    floor = _floor_light(origin[0] + to_floor * rays[0], origin[1] + to_floor * rays[1], shadows)
    wall = _wall_light(origin[0] + to_wall * rays[0], origin[2] + to_wall * rays[2])
    share = floor_share(camera_to_world)
    floor, wall = floor * share, wall * (1 - share)
    return np.stack([floor * a + wall * b for a, b in zip(scene.floor, scene.wall, strict=True)])


def floor_share(camera_to_world: np.ndarray) -> np.ndarray:
    """Share [v, n] of each pixel that lies below the join, from its distance to the join's image."""
    origin = camera_to_world[:, :3, 3]
    below = np.stack([np.zeros_like(origin[:, 2]), -origin[:, 2], origin[:, 1] - np.float32(cam.WALL)], -1)
    in_camera = (below[:, None] @ camera_to_world[:, :3, :3])[
        :, 0
    ]  # normal of the plane through camera and join
    slope = np.hypot(in_camera[:, 0], in_camera[:, 1]) / np.float32(cam.FOCAL)
    pixels = (in_camera @ _CENTRES) / _CENTRES[2] / slope[:, None]
    return np.clip(np.float32(0.5) + pixels, 0, 1)


def shadow_map(scene: Scene) -> np.ndarray:
    """[cells, cells, 2] float32 in 0..1 over the floor (rows y, columns x): light of lamp and of sky."""
    line = np.linspace(-_HALF, _HALF, _CELLS, dtype=np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(line, line))
    points = scene.to_local() @ np.stack([x, y, np.zeros_like(x)]) / np.float32(scene.scale)
    gap = np.maximum(scene.solid.distance(*points), 0)
    sky = 1 - np.float32(0.62) * np.exp(gap / np.float32(-0.26))
    both = np.stack([lamp_light(scene, points), sky], -1).reshape(_CELLS, _CELLS, 2)
    return cv2.GaussianBlur(both, (0, 0), 1.0)


def lamp_light(scene: Scene, points: np.ndarray, steps: int = 14) -> np.ndarray:
    """(1) smoothed, at the solid's local points [3, n]."""
    x, y, z = scene.to_local() @ LAMP
    light = np.ones_like(points[0])
    todo = np.flatnonzero(_passes_near(scene.solid, points, (x, y, z), margin=0.35))
    (a, b, c), along = points[:, todo], np.full(len(todo), 0.03, np.float32)
    least = np.ones_like(along)
    for _ in range(steps):
        distance = scene.solid.distance(a + along * x, b + along * y, c + along * z)
        least = np.minimum(least, SHARPNESS * distance / along)
        along = along + np.clip(distance, np.float32(0.04), np.float32(0.5))
    least = np.maximum(least, 0)
    light[todo] = least * least * (3 - 2 * least)
    return light


def _passes_near(solid: Solid, points: np.ndarray, direction, margin: float) -> np.ndarray:
    """Whether rays from the points come within `margin` of the sphere around the solid."""
    offset = np.array([[0], [0], [solid.middle]], np.float32) - points
    along = np.asarray(direction) @ offset
    return (offset * offset).sum(0) - along * along < (solid.radius + margin) ** 2


def _floor_light(x, y, shadows) -> np.ndarray:
    y = np.minimum(y, np.float32(cam.WALL))
    lamp, sky = _look_up(shadows, x, y)
    return (KEY * LAMP[2] * lamp * _pool(x, y + np.float32(0.3)) + AMBIENT * sky) * _dim(
        np.float32(cam.WALL) - y
    )


def _wall_light(x, z) -> np.ndarray:
    z = np.maximum(z, 0)
    return (-KEY * LAMP[1] * _pool(x, z - np.float32(0.6)) + AMBIENT) * _dim(z)


def _pool(a, b) -> np.ndarray:
    """The lamp is near: its light falls off from the middle of the stage."""
    return np.float32(1.12) / (1 + (a * a + b * b) * np.float32(1 / 26))


def _dim(distance) -> np.ndarray:
    """Floor and wall take light from each other near their join."""
    return 1 - np.float32(0.28) * np.exp(distance * np.float32(-1 / _JOIN))


def _look_up(shadows, x, y):
    """Bilinear values of the map at floor points [v, n]; open beyond its border."""
    scale = np.float32((_CELLS - 1) / (2 * _HALF))
    place = [(axis + np.float32(_HALF)) * scale for axis in (x, y)]
    found = cv2.remap(shadows, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(1, 1))
    return found[..., 0], found[..., 1]
