"""What a data set is before it is written: a `Recipe`. And the TFDS builder that writes any recipe.

Images are yielded as encoded bytes, never as arrays: TFDS would ask TensorFlow to encode an array.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data.dense_info import DenseInfo

Example = Mapping[str, Any]
KeyedExample = tuple[str, Example]  # the key decides the place in the shuffled order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split: how many examples it has, and how to make them (called once, read once)."""

    size: int
    examples: Callable[[], Iterator[KeyedExample]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A data set that can be written.

    Attributes:
        name: folder name under data_dir, and `config.data.name`.
        version: "major.minor.patch"; raise it when the same input gives other records.
        features: TFDS features of one example.
        splits: split name -> Split.
        source: where the input lies, for messages ("" when nothing is read).
        fingerprint: changes when the input changes; tells "already prepared" from "another set of this name".
        image_shape: (height, width, channels); height and width are None when the images differ in size.
        views: images in one example; the fewest where examples differ.
        dense: what its masks and keypoints stand for; None: it has none.
    """

    name: str
    version: str
    description: str
    features: tfds.features.FeaturesDict
    splits: Mapping[str, Split]
    source: str
    fingerprint: str
    image_shape: tuple[int | None, int | None, int]
    views: int = 1
    dense: DenseInfo | None = None

    def metadata(self) -> dict[str, Any]:
        """What is stored in metadata.json beside the shards."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "image_shape": list(self.image_shape),
            "views": self.views,
            **({"dense": dataclasses.asdict(self.dense)} if self.dense else {}),
        }


def point_features(views: int, points: int) -> dict[str, tfds.features.Tensor]:
    """Of the keypoints of one example, as `data.dense` reads them: places in pixels, what is seen, and the length d."""
    tensor = tfds.features.Tensor
    return {
        "keypoints": tensor(shape=(views, points, 2), dtype=np.float32),
        "keypoints_seen": tensor(shape=(views, points), dtype=np.int32),
        "keypoint_scale": tensor(shape=(views,), dtype=np.float32),
    }


class RecipeBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes a recipe as a TFDS data set in ArrayRecord format."""

    pkg_dir_path = None  # no package data (checksums, citation) beside this class

    def __init__(self, recipe: Recipe, data_dir: str):
        self._recipe = recipe
        self.name = recipe.name
        self.VERSION = tfds.core.Version(recipe.version)
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._recipe.description,
            features=self._recipe.features,
            metadata=tfds.core.MetadataDict(self._recipe.metadata()),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {name: split.examples() for name, split in self._recipe.splits.items()}

    def _generate_examples(self, **kwargs):
        raise NotImplementedError("_split_generators returns the generators themselves")
