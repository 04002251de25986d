"""Cameras as NeRF's and instant-ngp's transforms files write them, turned into this project's.

There a camera looks along its -z, with x right and y up (OpenGL, Blender); here along +z, with x right and y down
(OpenCV). The world stays as it is. With camera-to-world M in either convention,

    M_opencv = M_opengl diag(1, -1, -1, 1)                       (1)

The horizontal field of view a of an image of w pixels gives, as the NeRF code (arXiv 2003.08934) has it,

    f = w / (2 tan(a / 2))                                       (2)  in pixels

across and down (unless camera_angle_y says else), and the camera looks at the middle of the image, unless cx, cy say
else. Those count from the image's upper left corner; stored intrinsics from the middle of the first pixel.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from data.errors import DataError

LENS = ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy", "w", "h")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")  # where no distortion is left
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
_TOLERANCE = 1e-3  # of a rotation that a file has rounded


def camera_to_world(matrix: Any) -> np.ndarray:
    """(1) of a file's `transform_matrix`: float32 [4, 4].

    Raises:
        DataError: it is not a 4 x 4 matrix of a rotation and a place.
    """
    try:
        found = np.array(matrix, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("transform_matrix is not a 4 x 4 matrix of numbers: correct it") from error
    if found.shape != (4, 4):
        raise DataError(f"transform_matrix has shape {list(found.shape)}, expected [4, 4]: correct it")
    _check_rigid(found)
    return (found @ _FLIP).astype(np.float32)


def _check_rigid(matrix: np.ndarray) -> None:
    turn = matrix[:3, :3]
    if not np.isfinite(matrix).all() or np.abs(matrix[3] - [0, 0, 0, 1]).max() > _TOLERANCE:
        raise DataError("transform_matrix is no camera: expected finite numbers and a last row of 0, 0, 0, 1")
    if np.abs(turn.T @ turn - np.eye(3)).max() > _TOLERANCE or np.linalg.det(turn) < 0:
        lengths = ", ".join(f"{length:.4g}" for length in np.linalg.norm(turn, axis=0))
        raise DataError(
            "transform_matrix is no rigid camera: its first three columns must be a right-handed frame of unit "
            f"vectors, found lengths {lengths} and determinant {np.linalg.det(turn):.4g}; take scale and mirroring out"
        )


def intrinsics(lens: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """K [3, 3] float32 in pixels of an image, (0, 0) the middle of the first.

    Args:
        lens: LENS and DISTORTION keys of a file, as far as it has them; fl_x comes before camera_angle_x.
        height: of the image, pixels.
        width: likewise.

    Raises:
        DataError: neither fl_x nor camera_angle_x, a value out of range, a w or h that the image has not, a
            camera that is no pinhole.
    """
    _check_pinhole(lens)
    for key, found in (("w", width), ("h", height)):
        if key in lens and _number(lens, key) != found:
            raise DataError(
                f"{key} is {lens[key]} and the image has {found} pixels: give the images that the file describes"
            )
    fx = _focal(lens, "fl_x", "camera_angle_x", width)
    if fx is None:
        raise DataError("camera_angle_x is missing: add it (radians), or fl_x (pixels)")
    fy = _focal(lens, "fl_y", "camera_angle_y", height) or fx
    cx = _number(lens, "cx") if "cx" in lens else width / 2
    cy = _number(lens, "cy") if "cy" in lens else height / 2
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]], np.float32)


def _focal(lens: Mapping[str, Any], length: str, angle: str, pixels: int) -> float | None:
    if length in lens:
        return _between(lens, length, math.inf, "a positive number of pixels")
    if angle in lens:
        found = _between(lens, angle, math.pi, "an angle between 0 and pi, in radians")
        return pixels / (2 * math.tan(found / 2))  # (2)
    return None


def _between(lens: Mapping[str, Any], key: str, limit: float, expected: str) -> float:
    value = _number(lens, key)
    if not 0 < value < limit:
        raise DataError(f"{key} is {value:g}: expected {expected}")
    return value


def _number(lens: Mapping[str, Any], key: str) -> float:
    value = lens[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{key} is {value!r}: expected a number")
    return float(value)


def _check_pinhole(lens: Mapping[str, Any]) -> None:
    bent = [f"{key} = {lens[key]}" for key in DISTORTION if key in lens and _number(lens, key) != 0]
    if bent:
        raise DataError(f"{', '.join(bent)}: lens distortion is not modelled; undistort the images, write 0")
    model = lens.get("camera_model", _PINHOLES[0])
    if lens.get("is_fisheye") or model not in _PINHOLES:
        raise DataError(
            f"camera_model {model!r}, is_fisheye {lens.get('is_fisheye', False)}: undistort the images"
        )


def squared(matrix: np.ndarray, height: int, width: int, size: int) -> np.ndarray:
    """K of the middle square of an image, scaled to `size` x `size`, as `augment.centre_crop` cuts it."""
    side = min(height, width)
    scale, left, top = size / side, (width - side) // 2, (height - side) // 2
    # x' + 1/2 = (x - left + 1/2) scale: a scaled image keeps its corner, not the middle of its first pixel
    moved = [[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5], [0, 0, 1]]
    return (np.array(moved) @ matrix).astype(np.float32)
