"""What pictures of views3d show, pixel by pixel and point by point.

A pixel is the object where the solid covers half of it or more; else floor or wall, whichever has more of it.
With camera-to-world [R | o] and intrinsics K, a point x of the world lies in the image at

    (u, v, 1) ~ K R^T (x - o)                                                                          (1)

and the keypoints are

    centre        the middle of the sphere around the solid, by (1); it counts as seen, though it lies inside
    top           where the vertical through the centre leaves the solid, by (1); hidden behind the solid if that is
                  met before on the way from the camera
    left, right   the first and the last column of the object's mask, at the mean row of its pixels there
    upper, lower  the first and the last row, at the mean column

Pixel (0, 0) is a centre. The length that distances are divided by is the diagonal of the object's box, in pixels.
"""

import functools

import numpy as np

from data.builders import views3d_cameras as cam
from data.builders.views3d_room import Scene, floor_share
from data.builders.views3d_solids import Solid
from data.dense_info import HIDDEN, SEEN, UNLABELLED, DenseInfo

WALL, FLOOR, OBJECT = range(3)
INFO = DenseInfo(
    classes=("wall", "floor", "object"),
    points=("centre", "top", "left", "right", "upper", "lower"),
    pairs=((2, 3),),
    upright=True,
    scale="diagonal of the object's box",
)
_STEPS = 120  # of a march at most
_STEP, _DEPTH = (
    np.float32(0.01),
    np.float32(2e-4),
)  # its least step, and how deep in the solid counts as within


def class_maps(cover: np.ndarray, camera_to_world: np.ndarray) -> np.ndarray:
    """uint8 [v, SIDE, SIDE]: WALL, FLOOR or OBJECT. cover: of the solid, as `render_with_cover` gives it."""
    floor = floor_share(camera_to_world).reshape(cover.shape) >= 0.5
    return np.where(cover >= 0.5, OBJECT, np.where(floor, FLOOR, WALL)).astype(np.uint8)


def keypoints(scene: Scene, camera_to_world: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Of cameras [v, 4, 4] and their class maps: keypoints [v, k, 2], keypoints_seen [v, k], keypoint_scale [v].

    ValueError where a mask has no object.
    """
    heights = np.array([scene.solid.middle, top(scene.solid)]) * scene.scale
    fixed = project(np.stack([np.zeros(2), np.zeros(2), heights], -1), camera_to_world)
    ends = [extremes(mask == OBJECT) for mask in masks]
    points = np.concatenate([fixed, [places for places, _ in ends]], 1)
    seen = np.full(points.shape[:2], SEEN, np.int32)
    seen[:, 1] = np.where(sees(scene, camera_to_world, heights[1]), SEEN, HIDDEN)
    seen[((points < -0.5) | (points > cam.SIDE - 0.5)).any(-1)] = UNLABELLED
    scale = np.array([diagonal for _, diagonal in ends], np.float32)
    return {"keypoints": points.astype(np.float32), "keypoints_seen": seen, "keypoint_scale": scale}


def project(points: np.ndarray, camera_to_world: np.ndarray) -> np.ndarray:
    """(1): pixels [v, k, 2] of world points [k, 3] from cameras [v, 4, 4]."""
    offset = points[None] - camera_to_world[:, None, :3, 3]
    image = offset @ camera_to_world[:, :3, :3].astype(np.float64) @ cam.intrinsics().T.astype(np.float64)
    return image[..., :2] / image[..., 2:]


def extremes(shown: np.ndarray) -> tuple[np.ndarray, float]:
    """Left, right, upper and lower (x, y) [4, 2] of a mask [h, w], and its box's diagonal, both in pixels."""
    rows, columns = np.nonzero(shown)
    if not rows.size:
        raise ValueError("a view without the object has no extremes")
    left, right, upper, lower = columns.min(), columns.max(), rows.min(), rows.max()
    sides = [(x, rows[columns == x].mean()) for x in (left, right)]
    ends = [(columns[rows == y].mean(), y) for y in (upper, lower)]
    return np.array([*sides, *ends]), float(np.hypot(right - left + 1, lower - upper + 1))


@functools.cache
def top(solid: Solid) -> float:
    """Height at which the vertical axis leaves the solid, in its own frame: a march from above."""
    height = np.float32(3.0)
    for _ in range(_STEPS):
        height = height - solid.distance(np.float32(0), np.float32(0), height)
    return float(height)


def sees(scene: Scene, camera_to_world: np.ndarray, height: float) -> np.ndarray:
    """Whether nothing of the solid lies between cameras [v, 4, 4] and the point so high above the origin: bool [v]."""
    start = scene.to_local() @ camera_to_world[:, :3, 3].T / np.float32(scene.scale)
    way = np.array([[0], [0], [height / scene.scale]], np.float32) - start
    length = np.linalg.norm(way, axis=0)
    rays, along, least = way / length, np.zeros_like(length), np.zeros_like(length)
    for _ in range(_STEPS):
        gap = scene.solid.distance(*(start + along * rays))
        least, along = np.minimum(least, gap), np.minimum(along + np.maximum(gap, _STEP), length)
        if np.all((along == length) | (least < -_DEPTH)):
            break
    return least >= -_DEPTH
