"""Cameras of views3d, in the OpenCV convention: x right, y down, z forward; pixel (0, 0) is a centre.

World: z up, the floor is z = 0, the wall is y = WALL, the solid stands at the origin. With camera-to-world
[R | o] and intrinsics K, the pixel (u, v) looks along

    o + s R K^-1 (u, v, 1),   s > 0        (1)
"""

import dataclasses

import numpy as np

SIDE = 64  # pixels
WALL = 2.0  # distance of the wall behind the origin, world units
FOCAL = 104.0  # pixels: a field of view of 34 degrees
TARGET = np.array([0.0, 0.1, 0.52])  # what every camera looks at
AZIMUTH = (-55.0, 55.0)  # degrees; 0 faces the wall, positive moves the camera to the right
ELEVATION = (12.0, 48.0)  # degrees above the floor
DISTANCE = (4.8, 5.8)  # world units, from TARGET


@dataclasses.dataclass(frozen=True)
class Cameras:
    """v views: angles in degrees, distance in world units, all float32."""

    azimuth: np.ndarray  # [v]
    elevation: np.ndarray  # [v]
    distance: np.ndarray  # [v]
    camera_to_world: np.ndarray  # [v, 4, 4]


def intrinsics() -> np.ndarray:
    """K [3, 3] float32, the same for every view."""
    centre = (SIDE - 1) / 2
    return np.array([[FOCAL, 0, centre], [0, FOCAL, centre], [0, 0, 1]], np.float32)


def draw(random: np.random.Generator, views: int) -> Cameras:
    """Cameras with azimuth, elevation and distance uniform in their ranges."""
    unit = random.random((3, views))
    ranges = np.array([AZIMUTH, ELEVATION, DISTANCE])
    return place(*(ranges[:, :1] + unit * (ranges[:, 1:] - ranges[:, :1])))


def place(azimuth: np.ndarray, elevation: np.ndarray, distance: np.ndarray) -> Cameras:
    """Cameras at the given angles (degrees) and distances [v], all looking at TARGET."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.stack([np.cos(a), np.sin(a), np.zeros_like(a)], -1)
    forward = np.stack([-np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), -np.sin(e)], -1)
    matrix = np.tile(np.eye(4), (len(a), 1, 1))
    matrix[:, :3, 0] = right
    matrix[:, :3, 1] = np.cross(forward, right)
    matrix[:, :3, 2] = forward
    matrix[:, :3, 3] = TARGET - distance[:, None] * forward
    return Cameras(*(np.asarray(v, np.float32) for v in (azimuth, elevation, distance, matrix)))


def pixel_rays(inside: np.ndarray) -> np.ndarray:
    """Unit rays [3, SIDE^2, k] float32 in the camera's frame, row by row, k in each pixel.

    `inside` [k, 2]: where they pass, (x, y) from the pixel's centre, in pixels.
    """
    v, u = (axis.reshape(-1, 1) for axis in np.mgrid[:SIDE, :SIDE])
    pixels = np.stack(np.broadcast_arrays(u + inside[:, 0], v + inside[:, 1], 1.0))
    rays = np.einsum("ij,jnk->ink", np.linalg.inv(intrinsics().astype(np.float64)), pixels)
    return (rays / np.linalg.norm(rays, axis=0)).astype(np.float32)
