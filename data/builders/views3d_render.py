"""Renders the views of one scene of views3d: sphere tracing of the solid over the shaded room.

With the solid's distance function d and a ray o + t r,

    t <- t + d(o + t r)                     (1)  a point: comes to the surface, or passes by
    t <- t + max(d(o + t r) - CONE t, 0)    (2)  a pixel's cone: stays before all of its rays' hits

(2) with one ray a pixel finds the pixels that matter, (1) then traces a few rays in each. All of it happens
in the solid's own frame, all views at once. Light is added up linearly and turned to sRGB at the end.
"""

import itertools

import numpy as np

from data.builders import views3d_cameras as cam
from data.builders.views3d_palette import to_srgb
from data.builders.views3d_room import AMBIENT, KEY, LAMP, Scene, lamp_light, room, shadow_map
from data.builders.views3d_solids import Solid

_COARSE_STEPS, _FINE_STEPS, _GRAZING_STEPS = 12, 6, 18
_CONE = np.float32(0.75 / cam.FOCAL)  # a pixel's half diagonal, over the distance
_NEAR, _MISS, _GRAZING = np.float32(0.004), np.float32(0.012), np.float32(0.12)  # a pixel is about 0.05
_INSIDE = (
    np.array([[-1, -3], [3, -1], [-3, 1], [1, 3]]) / 8
)  # no two on a row or column: smooth edges from four rays
_CENTRES = cam.pixel_rays(np.zeros((1, 2)))[..., 0]
_FINE = cam.pixel_rays(_INSIDE)
_TETRAHEDRON = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)


def render(scene: Scene, camera_to_world: np.ndarray) -> np.ndarray:
    """uint8 sRGB images [v, SIDE, SIDE, 3] of the scene from cameras [v, 4, 4]."""
    return render_with_cover(scene, camera_to_world)[0]


def render_with_cover(scene: Scene, camera_to_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images, and the share [v, SIDE, SIDE] float32 in 0..1 of each pixel that shows the solid."""
    image = room(scene, camera_to_world, shadow_map(scene)).reshape(3, -1)
    rotations = scene.to_local() @ camera_to_world[:, :3, :3]
    origins = scene.to_local() @ camera_to_world[:, :3, 3].T / np.float32(scene.scale)  # [3, v]
    pixels, depth = _touched(scene.solid, origins, rotations)
    start = np.repeat(origins[:, pixels // cam.SIDE**2], len(_INSIDE), axis=1)
    solid = _solid(scene, start, _fine_rays(rotations, pixels), np.repeat(depth, len(_INSIDE)))
    solid = solid.reshape(4, -1, len(_INSIDE)).mean(2)
    image[:, pixels] = image[:, pixels] * (1 - solid[3]) + solid[:3]
    cover = np.zeros(image.shape[1], np.float32)
    cover[pixels] = solid[3]
    frame = (-1, cam.SIDE, cam.SIDE)
    return to_srgb(image.T).reshape(*frame, 3), cover.reshape(frame)


def _fine_rays(rotations, pixels) -> np.ndarray:
    """Local rays [3, n k] of n pixels that are numbered through all views, k in each."""
    bounds = np.searchsorted(pixels, cam.SIDE**2 * np.arange(len(rotations) + 1))
    spans = zip(rotations, itertools.pairwise(bounds), strict=True)
    return np.concatenate(
        [turn @ _FINE[:, pixels[a:b] % cam.SIDE**2].reshape(3, -1) for turn, (a, b) in spans], axis=1
    )


def _touched(solid: Solid, origins, rotations) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (numbered through all views) that may show the solid, and for each a length short of it. (2)."""
    rays = np.moveaxis(rotations @ _CENTRES, 0, 1)  # [3, v, n]
    near, far = (length.ravel() for length in _interval(solid, origins[:, :, None], rays))
    pixels = np.flatnonzero(near < far)
    rays, depth, start = rays.reshape(3, -1)[:, pixels], near[pixels], origins[:, pixels // cam.SIDE**2]
    for _ in range(_COARSE_STEPS):
        free = solid.distance(*(start + depth * rays)) - _CONE * depth
        depth += np.maximum(free, 0)
    kept = np.flatnonzero(depth < far[pixels])
    return pixels[kept], depth[kept]


def _interval(solid: Solid, start, rays):
    """Where rays come within a pixel of the sphere around the solid, and where they leave it or the room."""
    offset = np.array([0, 0, solid.middle], np.float32)[:, None, None] - start
    along = (offset * rays).sum(0)
    inside = (np.float32(solid.radius) + _CONE * along) ** 2 - (offset * offset).sum(0) + along * along
    half = np.sqrt(np.maximum(inside, 0))
    floor = -start[2] / np.minimum(rays[2], np.float32(-1e-4)) + np.float32(0.2)
    return along - half, np.where(inside > 0, np.minimum(along + half, floor), 0)


def _solid(scene: Scene, start, rays, depth) -> np.ndarray:
    """Linear RGB and cover [4, n] of the solid along local rays [3, n] from `depth` [n] on; 0 if missed."""
    reached, cover = _hits(scene.solid, start, rays, depth)
    points = (
        start + np.where(cover > 0, reached, depth) * rays
    )  # a miss is shaded too, where that is harmless
    colour = _shade(scene, points, _normals(scene.solid, points), rays)
    return np.concatenate([colour, np.ones_like(depth)[None]]) * cover


def _hits(solid: Solid, start, rays, depth) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [n] of local rays [3, n], and how much they hit, 0..1. The few that graze get a second round.

    The hit fades over a fraction of a pixel: a last bit, which differs between processors, changes nothing.
    """
    depth, gap = _march(solid, start, rays, depth, _FINE_STEPS)
    slow = np.flatnonzero((gap >= _NEAR) & (gap < _GRAZING))
    depth[slow], gap[slow] = _march(solid, start[:, slow], rays[:, slow], depth[slow], _GRAZING_STEPS)
    return depth, np.clip((_MISS - gap) / (_MISS - _NEAR), 0, 1)


def _march(solid: Solid, start, rays, depth, steps: int):
    """(1), `steps` times: lengths [n] and the distances found on the last step."""
    for _ in range(steps):
        gap = solid.distance(*(start + depth * rays))
        depth = depth + gap
    return depth, gap


def _normals(solid: Solid, points) -> np.ndarray:
    """Unit normals [3, n] at local points [3, n]: the distance at the corners of a small tetrahedron."""
    corners = [solid.distance(*(points + np.float32(0.004) * c[:, None])) for c in _TETRAHEDRON]
    total = _TETRAHEDRON.T @ np.stack(corners)
    return total / np.sqrt((total * total).sum(0))


def _shade(scene: Scene, points, normals, rays) -> np.ndarray:
    """Linear RGB [3, n] at local points: Lambert, light of sky and floor, a soft highlight."""
    lamp_at = (scene.to_local() @ LAMP)[:, None]
    lamp = np.maximum((lamp_at * normals).sum(0), 0)
    if not scene.solid.convex:
        lamp = lamp * lamp_light(scene, points + np.float32(0.02) * normals, steps=8)
    down = np.float32(0.5) - np.float32(0.5) * normals[2]
    near_floor = np.exp(np.maximum(points[2], 0) * np.float32(-scene.scale / 0.22))
    sky = AMBIENT * (np.float32(1.2) - np.float32(0.75) * down) * (1 - np.float32(0.28) * near_floor * down)
    bounce = np.float32(0.30) * down * (1 - np.float32(0.7) * near_floor)
    half = lamp_at - rays
    shine = np.maximum((half * normals).sum(0) / np.sqrt((half * half).sum(0)), 0)
    for _ in range(5):  # to the power 32; numpy's own power is slow
        shine *= shine
    direct, reflected = scene.colour[:, None], (scene.floor * (np.float32(0.4) + scene.colour))[:, None]
    return (
        (np.float32(1.1) * KEY * lamp + sky) * direct + bounce * reflected + np.float32(0.22) * lamp * shine
    )
