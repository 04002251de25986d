"""Small data sets, prepared once a test run and removed at its end."""

import atexit
import functools
import pathlib
import shutil
import tempfile

import cv2
import numpy as np
import tensorflow_datasets as tfds

from data.builders.recipe import Recipe, RecipeBuilder, Split
from data.sources import DataSet, open_data_set

tfds.disable_progress_bar()
CAMERAS = 4
TRAIN, TEST = 23, 11  # examples
INTRINSICS = np.array([[20, 0, 7.5], [0, 24, 7.5], [0, 0, 1]], np.float32)  # of the scenes, in pixels


def noise(key: int, *shape: int) -> np.ndarray:
    """The image that is stored under `key`: noise, but its first value is the key."""
    image = np.random.default_rng(key).integers(0, 256, shape, np.uint8)
    image.flat[0] = key
    return image


def png(image: np.ndarray) -> bytes:
    """Encoded without loss; RGB or grey."""
    return cv2.imencode(".png", image[..., ::-1] if image.shape[-1] == 3 else image)[1].tobytes()


@functools.cache
def data_dir() -> pathlib.Path:
    """Where everything here is prepared."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="soda_jax_test_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def prepare(name: str, features: dict, examples: dict, version: str = "1.0.0", place=None) -> pathlib.Path:
    """Writes {split: [example]} as a TFDS data set and returns its folder."""
    splits = {
        split: Split(size=len(rows), examples=lambda rows=rows: ((str(i), row) for i, row in enumerate(rows)))
        for split, rows in examples.items()
    }
    recipe = Recipe(
        name=name,
        version=version,
        description=name,
        features=tfds.features.FeaturesDict(features),
        splits=splits,
        source="",
        fingerprint="",
        image_shape=(0, 0, 0),
    )
    builder = RecipeBuilder(recipe, str(place or data_dir()))
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def single_rows(first: int, count: int, *shape: int) -> list[dict]:
    """Examples of a classified set of single images; the label is the image's key modulo 5."""
    return [{"image": png(noise(key, *shape)), "label": key % 5} for key in range(first, first + count)]


@functools.cache
def single(channels: int = 1) -> DataSet:
    """Single images of 28 x 28 pixels with 5 classes."""
    shape = (28, 28, channels)
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=5)}
    rows = {"train": single_rows(0, TRAIN, *shape), "test": single_rows(100, TEST, *shape)}
    prepare(f"single{channels}", features, rows)
    return open_data_set(f"single{channels}", data_dir())


def _scene(key: int) -> dict:
    keys = [10 * key + camera for camera in range(CAMERAS)]
    cameras = {"camera_to_world": np.stack([camera_to_world(k) for k in keys]), "intrinsics": INTRINSICS}
    return {"images": [png(noise(k, 16, 16, 3)) for k in keys], "shape": key % 3, **cameras}


def camera_to_world(key: int) -> np.ndarray:
    """That of the image `key`: `key` units to the right of the origin."""
    return np.array([[1, 0, 0, key], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)


@functools.cache
def posed() -> DataSet:
    """Scenes of 4 cameras, 16 x 16 RGB: camera v of scene s has the key 10 s + v, and stands at (key, 0, 0)."""
    image = tfds.features.Image(shape=(16, 16, 3))
    features = {
        "images": tfds.features.Sequence(image, length=CAMERAS),
        "shape": tfds.features.ClassLabel(names=["ball", "box", "cone"]),
        "camera_to_world": tfds.features.Tensor(shape=(CAMERAS, 4, 4), dtype=np.float32),
        "intrinsics": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
    }
    prepare(
        "posed", features, {"train": [_scene(k) for k in range(8)], "test": [_scene(k) for k in range(8, 13)]}
    )
    return open_data_set("posed", data_dir())
