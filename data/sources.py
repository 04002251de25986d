"""Any TFDS data set that was prepared as ArrayRecord, as random-access sources of encoded images.

`open_data_set` reads the folder `data_dir/name/version` alone: neither the builder's code nor TensorFlow is
needed. Records are parsed when asked for, images stay PNG or JPEG bytes until `data.views` decodes them.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data import latents
from data.errors import DataError
from data.locations import default_dir
from data.missing import data_set_is_missing
from data.views import decode, near

# {"images": [bytes] ([Near] where they are zoomed), "labels": {name: int}, "index": int}, and of v views whose cameras
# are known "camera_to_world" [v, 4, 4] and "intrinsics" [3, 3] in pixels, float32, in the OpenCV convention
Example = dict[str, Any]
CAMERAS = {"camera_to_world": (-1, 4, 4), "intrinsics": (3, 3)}
_SAMPLE = 16  # images looked at where the data set does not declare one size for all


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records of one split. `source[i]` is an `Example`: 1 image, or one for each camera of a scene."""

    records: Any  # TFDS data source of serialized tf.train.Example: len, [i] and __getitems__
    image_key: str
    label_keys: Mapping[str, str]  # name of a label -> the feature that holds it
    cameras: bool = False  # whether the files hold them
    zoom: float = 1.0  # the middle of images alone is looked at, its sides 1 / zoom of theirs
    corner: tuple[int, int] = (0, 0)  # (x, y) of the upper left pixel that is looked at

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        return self._parsed(index, self.records[index])

    def read(self, rows: Sequence[int]) -> list[Example]:
        """Several examples; much cheaper than one by one, since the records are read side by side, each once."""
        rows = [int(row) for row in rows]
        distinct = list(dict.fromkeys(rows))  # a set of one object repeats it all through a batch
        found = dict(
            zip(distinct, map(self._parsed, distinct, self.records.__getitems__(distinct)), strict=True)
        )
        return [found[row] for row in rows]

    def _parsed(self, index: int, record: bytes) -> Example:
        features = tf_example_pb2.Example.FromString(record).features.feature
        return {
            "images": near(features[self.image_key].bytes_list.value, self.zoom),
            "labels": {name: features[key].int64_list.value[0] for name, key in self.label_keys.items()},
            "index": index,
            **(self._cameras(features) if self.cameras else {}),
        }

    def _cameras(self, features: Any) -> dict[str, np.ndarray]:
        found = {name: _floats(features[name], shape) for name, shape in CAMERAS.items()}
        found["intrinsics"][:2, 2] -= self.corner
        return found


def _floats(feature: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(feature.float_list.value, np.float32).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A prepared data set. `splits` has "train" and, if it exists, "test", whatever the files call them."""

    name: str
    path: Path
    splits: Mapping[str, Source]
    split_names: Mapping[str, str]  # "train" and "test" -> the names asked for
    labels: dict[str, int]  # name -> number of classes
    label_names: dict[str, list[str]]
    image_shape: tuple[int, int, int]  # height, width, channels; a typical image's where they differ
    views: int = 1  # cameras of a scene, the fewest where scenes differ; 1: single images
    latents: bool = (
        False  # its images are those of data/latents.py: of each example copies, augmented but for the first
    )
    manifest: str  # changes when the data set changes
    present: tuple[str, ...] = field(default=())  # every split that the files have

    @property
    def cameras(self) -> bool:
        """Whether the cameras of the views are known."""
        return all(source.cameras for source in self.splits.values())

    def split(self, which: str) -> Source:
        """The source of "train" or "test".

        Raises:
            DataError: the files have no such split; names the config key to change.
        """
        if which in self.splits:
            return self.splits[which]
        raise DataError(
            f"data set {self.name!r} in {self.path} has no split {self.split_names[which]!r}, only "
            f"{', '.join(self.present)}: set config.data.{which}_split, or prepare it with a {which} split"
        )


def open_data_set(
    name: str, data_dir: str | Path = "", *, train_split: str = "train", test_split: str = "test"
) -> DataSet:
    """Opens `name` (TFDS syntax: `cifar10`, `name/config`, `name:1.0.0`) below `data_dir`.

    Args:
        name: of a data set that `python -m data.prepare` or TFDS prepared.
        data_dir: "" looks in this project's default folder, then in TFDS's.
        train_split: what the files call it; TFDS slices such as "train[:90%]" are allowed.
        test_split: likewise; it may be missing until `split("test")` asks for it.

    Raises:
        DataError: not prepared, prepared incompletely, not in ArrayRecord format, no images in it, or no such
            training split.
    """
    path = _find(name, _roots(data_dir))
    with _damage_named(path):
        return _opened(name, path, {"train": train_split, "test": test_split})


def _opened(name: str, path: Path, names: Mapping[str, str]) -> DataSet:
    builder = tfds.builder_from_directory(str(path))
    image_key, label_keys = _image_key(builder), _label_keys(builder)
    keys = {
        "image_key": image_key,
        "label_keys": label_keys,
        "cameras": _has_cameras(builder.info.features),
    }
    splits = {
        which: Source(records=_records(builder, which, split), **keys)
        for which, split in names.items()
        if split.split("[")[0] in builder.info.splits
    }
    features = builder.info.features
    shape, are_latents = _shape(splits, features[image_key]), _are_latents(features[image_key])
    dataset = DataSet(
        name=name,
        path=path,
        splits=splits,
        split_names=dict(names),
        labels={name: features[key].num_classes for name, key in label_keys.items()},
        label_names={name: features[key].names for name, key in label_keys.items()},
        image_shape=shape,
        latents=are_latents,
        views=1 if are_latents else _views(splits, builder.info.metadata),
        manifest=_manifest(path),
        present=tuple(builder.info.splits),
    )
    dataset.split("train")
    return dataset


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns whatever TFDS, protobuf and ArrayRecord raise of damaged files into one line that names the folder."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} cannot be read ({why}): try again; if its files are damaged, delete this folder and prepare "
            "the data set again"
        ) from error


# Where the files are ----------------------------------------------------------------------------------


def _roots(data_dir: str | Path) -> list[Path]:
    if data_dir:
        return [Path(data_dir).expanduser()]
    tfds_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return [Path(default_dir()), Path(tfds_dir).expanduser()]


def _find(name: str, roots: list[Path]) -> Path:
    folder, _, version = name.partition(":")
    for root in roots:
        found = [d for d in _versions(root / folder) if version in ("", d.name)]
        if found:
            return max(found, key=lambda d: tfds.core.Version(d.name))
    raise data_set_is_missing(name, roots)


def _versions(folder: Path) -> list[Path]:
    return [
        info.parent
        for info in folder.glob("*/dataset_info.json")
        if tfds.core.Version.is_valid(info.parent.name)
    ]


def _manifest(path: Path) -> str:
    files = [path / name for name in ("dataset_info.json", "features.json", "metadata.json")]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.exists())).hexdigest()[:16]


# What is in them --------------------------------------------------------------------------------------


def _records(builder: tfds.core.DatasetBuilder, which: str, split: str) -> Sequence[bytes]:
    formats = {f.value for f in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise DataError(
            f"expected a data set in array_record format, found {', '.join(sorted(formats))} in "
            f"{builder.data_path}: prepare it again in that format, or change config.data.dir"
        )
    for shard in _slice(builder, which, split).filepaths:
        if not shard.exists():
            raise DataError(f"{shard} is missing: delete {builder.data_path} and prepare the data set again")
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(split=split, deserialize_method=raw)


def _slice(builder: tfds.core.DatasetBuilder, which: str, split: str) -> Any:
    """TFDS's description of a split such as "train[:90%]". DataError where it cannot be read or is empty."""
    try:
        found = builder.info.splits[split]
    except (ValueError, KeyError, AssertionError) as error:
        raise DataError(
            f"config.data.{which}_split = {split!r} is no slice that TFDS reads: write it as train[:90%] or train[100:]"
        ) from error
    if not found.num_examples:
        raise DataError(f"config.data.{which}_split = {split!r} holds no example of {builder.data_path}")
    return found


def _is_image(feature: tfds.features.FeatureConnector) -> bool:
    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    return isinstance(inner, tfds.features.Image)


def _are_latents(feature: tfds.features.FeatureConnector) -> bool:
    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    return inner.shape[-1:] == (latents.CHANNELS,) and inner.np_dtype == np.uint16


def _image_key(builder: tfds.core.DatasetBuilder) -> str:
    features = builder.info.features
    keys = sorted(key for key, feature in features.items() if key == "images" or _is_image(feature))
    if len(keys) != 1 and "image" not in keys:
        raise DataError(
            f"expected one image feature in {builder.data_path}, found {keys or 'none'} among "
            f"{sorted(features)}: choose another config.data.name"
        )
    return "image" if "image" in keys else keys[0]


def _has_cameras(features: tfds.features.FeaturesDict) -> bool:
    """Whether CAMERAS are there in the shapes that are read: one matrix a view, and one for all views of a scene."""
    ends = {name: tuple(features[name].shape or ())[-2:] for name in CAMERAS if name in features}
    return (
        ends == {name: shape[-2:] for name, shape in CAMERAS.items()}
        and len(features["intrinsics"].shape) == 2
    )


def _label_keys(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """Name -> feature of each label. The one label of single images is called `label`, whatever the files say."""
    # Sorted: features.json is read into a map without an order.
    features = builder.info.features
    keys = sorted(key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel))
    single = isinstance(features[_image_key(builder)], tfds.features.Image)
    return {"label": keys[0]} if single and len(keys) == 1 else {key: key for key in keys}


def _shape(splits: Mapping[str, Source], feature: Any) -> tuple[int, int, int]:
    """(height, width, channels) of an image."""
    declared = tuple(feature.shape or ())[-3:]
    if len(declared) == 3 and None not in declared:
        return declared
    return _typical_shape(next(iter(splits.values()), ()))


def _views(splits: Mapping[str, Source], metadata: Mapping[str, Any] | None) -> int:
    """The fewest images in an example where our builder wrote it down, else those in the first example."""
    stored = (metadata or {}).get("views", 1)
    source = next(iter(splits.values()), ())
    return stored if stored > 1 else len(source[0]["images"]) if len(source) else 1


def _typical_shape(source: Sequence[Example]) -> tuple[int, int, int]:
    rows = np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int))
    shapes = [decode(source[int(row)]["images"][0], 3).shape for row in rows]
    return tuple(int(side) for side in np.median(shapes, axis=0))
