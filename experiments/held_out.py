"""What novel views are asked of: scenes that were never trained on, seen by some cameras, wanted from the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data.errors import DataError
from data.pipeline import check_fit
from data.sources import DataSet, Example
from data.views import cameras_of, decode, plain_view
from experiments import build
from experiments.pictures import choose
from experiments.runs import Run
from soda_jax.evaluation.cameras import nearest_view, rig_of
from soda_jax.evaluation.image_quality import SMALLEST
from soda_jax.methods.soda import SODA

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A held-out scene, and the cameras that it is seen from."""

    example: Example
    cameras: tuple[int, ...]  # of the sources, config.data.sources of them
    shape: tuple[int, ...]  # of its images as they are stored

    @property
    def others(self) -> list[int]:
        """The cameras that it is wanted from."""
        return [v for v in range(len(self.example["images"])) if v not in self.cameras]

    def view(self, camera: int, size: int, channels: int) -> np.ndarray:
        """uint8 [size, size, channels]."""
        return plain_view(self.example["images"][camera], size, channels)

    def sources(self, config: ConfigDict) -> np.ndarray:
        """What the encoder sees, [h, w, c], or [v, h, w, c] of several."""
        c = config.data
        views = np.stack([self.view(camera, c.source_size, c.channels) for camera in self.cameras])
        return views if len(views) > 1 else views[0]

    def rays_from(self, camera: int) -> dict[str, np.ndarray]:
        """What the denoiser is told of a camera, beside those of the sources."""
        own = list(self.cameras) if len(self.cameras) > 1 else self.cameras[0]
        return cameras_of(self.example, own, camera, self.shape)

    def orbit(self, frames: int) -> Arrays:
        """The same of a walk around the scene that starts where the first source stands, [frames, ...]."""
        cameras, first = self.example["camera_to_world"], self.cameras[0]
        walk = rig_of(cameras).orbit(cameras, cameras[first], frames)
        fixed = self.rays_from(first)
        return {name: np.repeat(x[None], frames, axis=0) for name, x in fixed.items()} | {
            "target_camera": walk.astype(np.float32)
        }


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Sources and targets, scene after scene; `row` says which of the sources a target belongs to."""

    sources: np.ndarray  # uint8 [s, h, w, c], or [s, v, h, w, c]: as the encoder sees them
    seen: Arrays  # [s, ...]: the cameras of the sources, the first of them as the target's
    row: np.ndarray  # int [n]
    targets: np.ndarray  # uint8 [n, h, w, c]
    nearest: np.ndarray  # uint8 [n, h, w, c]: the source whose camera is nearest to the target's
    cameras: Arrays  # [n, ...]


def check(run: Run, dataset: DataSet) -> None:
    """Raises ValueError (or DataError), naming the key, where the run cannot be asked for a view."""
    config = run.config
    if not isinstance(run.method, SODA):
        raise ValueError(f"config.method={config.method!r} draws no views: take a run of soda")
    if not dataset.cameras:
        raise DataError(
            f"--mode=novel_views needs cameras, and data set {dataset.name!r} has none (camera_to_world and "
            "intrinsics): train on posed data with config.data.pair='pose' and config.model.rays='moment'"
        )
    if run.method.rays is None:
        raise ValueError(
            "--mode=novel_views asks for a view by its camera, and config.model.rays='none' tells the denoiser of "
            "none: train with config.model.rays='moment' and config.data.pair='pose'"
        )
    check_fit(dataset, build.views(config))
    dataset.split("test")
    if config.data.image_size < SMALLEST:
        raise ValueError(
            f"config.data.image_size={config.data.image_size}: SSIM needs {SMALLEST} pixels or more"
        )


def scenes_of(dataset: DataSet, count: int, seed: int, sources: int = 1) -> list[Scene]:
    """Scenes of the test split in random order, all where there are fewer; the source cameras of each are drawn."""
    source = dataset.split("test")
    chosen = choose(source, count, seed)
    examples = [found for i in range(0, len(chosen), 64) for found in source.read(chosen[i : i + 64])]
    return [_scene(example, seed, sources) for example in examples]


def _scene(example: dict[str, Any], seed: int, sources: int) -> Scene:
    rng, views = np.random.default_rng([seed, example["index"]]), len(example["images"])
    first = int(rng.integers(views))
    rest = rng.permutation([view for view in range(views) if view != first])[: sources - 1]
    cameras = (first, *(int(view) for view in rest))
    return Scene(example=example, cameras=cameras, shape=decode(example["images"][0], 3).shape)


def pairs_of(scenes: Sequence[Scene], config: ConfigDict) -> Pairs:
    """Every scene with each of its other cameras."""
    c = config.data
    wanted = [(row, scene, camera) for row, scene in enumerate(scenes) for camera in scene.others]
    return Pairs(
        sources=np.stack([scene.sources(config) for scene in scenes]),
        seen=_stacked([scene.rays_from(scene.cameras[0]) for scene in scenes]),
        row=np.array([row for row, *_ in wanted]),
        targets=np.stack([scene.view(camera, c.image_size, c.channels) for _, scene, camera in wanted]),
        nearest=np.stack([nearest(scene, camera, config) for _, scene, camera in wanted]),
        cameras=_stacked([scene.rays_from(camera) for _, scene, camera in wanted]),
    )


def _stacked(rows: Sequence[dict[str, np.ndarray]]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def nearest(scene: Scene, camera: int, config: ConfigDict) -> np.ndarray:
    """The first baseline: the source that looks most in the direction of the target, copied. See `nearest_view`."""
    cameras, sources = scene.example["camera_to_world"], list(scene.cameras)
    found = sources[nearest_view(cameras[sources], cameras[camera])]
    return scene.view(found, config.data.image_size, config.data.channels)
