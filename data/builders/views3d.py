"""views3d: scenes of one solid on a floor before a wall, each from eight cameras, rendered from a seed.

A scene is a combination of factors, all of them labels. No two scenes share (shape, object_hue, floor_hue,
wall_hue, size), so that the splits are disjoint even for sphere, cylinder and cone, whose yaw cannot be seen.
The yaw stays below 90 degrees, where it is unique for the other solids.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data.builders import views3d_cameras, views3d_labels, workers
from data.builders.images import encode_png
from data.builders.progress import report
from data.builders.recipe import Recipe, Split, point_features
from data.builders.views3d_cameras import Cameras
from data.builders.views3d_palette import HUES, pale, strong
from data.builders.views3d_render import render_with_cover
from data.builders.views3d_room import Scene
from data.builders.views3d_solids import SOLIDS

VERSION = "1.1.0"  # raise it whenever a pixel or a label changes; 1.0.0 had neither masks nor keypoints
SIZES = {"small": 0.68, "medium": 0.84, "large": 1.0, "huge": 1.16}
YAWS = {"0": 0.0, "22": 22.5, "45": 45.0, "67": 67.5}  # degrees
FACTORS = {
    "shape": tuple(SOLIDS),
    "object_hue": tuple(HUES),
    "floor_hue": tuple(HUES),
    "wall_hue": tuple(HUES),
    "size": tuple(SIZES),
    "yaw": tuple(YAWS),
}
_FLOORS, _WALLS = pale(0.82, 0.46), pale(0.90, 0.34)
_SOLID_COLOURS = strong()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to render. The defaults are the data set; tests render less of it."""

    seed: int = 0
    train: int = 4096
    test: int = 512
    views: int = 8


def recipe(plan: Plan | None = None) -> Recipe:
    """The data set; nothing is rendered until its splits are read."""
    plan = plan or Plan()
    factors = draw_factors(plan)
    ranges = {"train": range(plan.train), "test": range(plan.train, plan.train + plan.test)}
    side = views3d_cameras.SIDE
    return Recipe(
        name="views3d",
        version=VERSION,
        description=f"{plan.train + plan.test} scenes of simple solids, each from {plan.views} cameras.",
        features=_features(plan.views),
        splits={
            split: Split(
                size=len(scenes), examples=functools.partial(_generate, split, plan, factors, scenes)
            )
            for split, scenes in ranges.items()
        },
        source="",
        fingerprint=repr(plan),
        image_shape=(side, side, 3),
        views=plan.views,
        dense=views3d_labels.INFO,
    )


def draw_factors(plan: Plan) -> np.ndarray:
    """Class numbers [scenes, factors] in the order of FACTORS; the first `plan.train` rows are train."""
    random = np.random.default_rng(plan.seed)
    counts = [len(names) for names in FACTORS.values()]
    all_but_yaw = int(np.prod(counts[:-1]))
    scenes = plan.train + plan.test
    if scenes > all_but_yaw:
        raise ValueError(f"expected at most {all_but_yaw} scenes, one per combination, found {scenes}")
    chosen = np.argsort(random.random(all_but_yaw))[:scenes]
    yaw = (random.random(scenes) * counts[-1]).astype(np.int64)
    return np.stack([*np.unravel_index(chosen, counts[:-1]), yaw], axis=1)


def cameras_of(plan: Plan, scene: int) -> Cameras:
    """The cameras of one scene: a stream of their own, so that scenes can be made in any order."""
    return views3d_cameras.draw(np.random.default_rng((plan.seed, scene)), plan.views)


def scene_of(classes: np.ndarray) -> Scene:
    """The scene that class numbers [factors] stand for."""
    shape, hue, floor, wall, size, yaw = (int(number) for number in classes)
    return Scene(
        solid=list(SOLIDS.values())[shape],
        scale=list(SIZES.values())[size],
        yaw=float(np.deg2rad(list(YAWS.values())[yaw])),
        colour=_SOLID_COLOURS[hue],
        floor=_FLOORS[floor],
        wall=_WALLS[wall],
    )


def example(scene: int, plan: Plan, factors: np.ndarray) -> dict:
    """One record: the encoded views, their masks and keypoints, their cameras, and the labels."""
    cameras, shown = cameras_of(plan, scene), scene_of(factors[scene])
    images, cover = render_with_cover(shown, cameras.camera_to_world)
    masks = views3d_labels.class_maps(cover, cameras.camera_to_world)
    return {
        "images": np.array([encode_png(image) for image in images], object),
        "masks": np.array([encode_png(mask) for mask in masks], object),
        **views3d_labels.keypoints(shown, cameras.camera_to_world, masks),
        "intrinsics": views3d_cameras.intrinsics(),
        **dataclasses.asdict(cameras),
        **dict(zip(FACTORS, (int(number) for number in factors[scene]), strict=True)),
    }


def _generate(split: str, plan: Plan, factors: np.ndarray, scenes: range) -> Iterator:
    make = functools.partial(example, plan=plan, factors=factors)
    processes = workers.core_count() if len(scenes) > 64 else 1
    made = workers.ordered_map(make, scenes, processes=processes)
    watched = report(made, total=len(scenes), label=f"views3d {split}", unit="scenes")
    for scene, record in zip(scenes, watched, strict=True):
        yield f"{scene:06d}", record


def _features(views: int) -> tfds.features.FeaturesDict:
    per_view = functools.partial(tfds.features.Tensor, dtype=np.float32)
    return tfds.features.FeaturesDict(
        {
            # Plain bytes, not Image: a reader wants two of the views, and TFDS would decode them all.
            "images": tfds.features.Tensor(shape=(views,), dtype=np.object_),
            "masks": tfds.features.Tensor(shape=(views,), dtype=np.object_),
            **point_features(views, len(views3d_labels.INFO.points)),
            "camera_to_world": per_view(shape=(views, 4, 4)),
            "intrinsics": per_view(shape=(3, 3)),
            "azimuth": per_view(shape=(views,)),
            "elevation": per_view(shape=(views,)),
            "distance": per_view(shape=(views,)),
            **{name: tfds.features.ClassLabel(names=list(names)) for name, names in FACTORS.items()},
        }
    )
