"""Writes folders of objects as NeRF keeps them: images, and transforms files in OpenGL's convention."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from data.builders import views3d, views3d_cameras
from data.builders.views3d_render import render

ANGLE = 2 * math.atan(views3d_cameras.SIDE / 2 / views3d_cameras.FOCAL)  # radians, of views3d's cameras
PLAN = views3d.Plan(train=6, test=0, views=4)


def scene(number: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [v, 64, 64, 3] and OpenCV cameras [v, 4, 4] of a scene of views3d."""
    cameras = views3d.cameras_of(PLAN, number).camera_to_world[:views]
    return render(views3d.scene_of(views3d.draw_factors(PLAN)[number]), cameras), cameras


def picture(path: Path, size=(8, 8), mode="RGB", seed=0) -> Path:
    """Writes a small image of noise, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def opengl(camera_to_world: np.ndarray) -> list[list[float]]:
    """An OpenCV camera as a transforms file has it: the axes y and z turned round."""
    matrix = camera_to_world.astype(np.float64).tolist()
    return [[row[0], -row[1], -row[2], row[3]] for row in matrix]


def frame(file_path: str, camera_to_world=None, **more) -> dict:
    """One frame; without a camera, one at the origin."""
    camera = np.eye(4) if camera_to_world is None else camera_to_world
    return {"file_path": file_path, "transform_matrix": opengl(camera), **more}


def write_json(path: Path, frames: list[dict], **lens) -> Path:
    """A transforms file; without a lens, with views3d's angle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**(lens or {"camera_angle_x": ANGLE}), "frames": frames}))
    return path


def noise_object(
    folder: Path, views: int = 3, file="transforms_train.json", stem="r", lens=None, **options
) -> Path:
    """An object of noise whose camera k stands at (k, 0, 0); returns its folder."""
    frames = []
    for k in range(views):
        camera = np.eye(4)
        camera[0, 3] = k
        picture(folder / "images" / f"{stem}_{k}.png", seed=k, **options)
        frames.append(frame(f"./images/{stem}_{k}", camera))
    write_json(folder / file, frames, **(lens or {}))
    return folder


def rendered_object(folder: Path, number: int, views: int) -> Path:
    """A scene of views3d, losslessly; returns its folder."""
    images, cameras = scene(number, views)
    (folder / "train").mkdir(parents=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / "train" / f"r_{k}.png")
    write_json(folder / "transforms_train.json", [frame(f"./train/r_{k}", c) for k, c in enumerate(cameras)])
    return folder
