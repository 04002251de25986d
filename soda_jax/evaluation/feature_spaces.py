"""Named feature spaces, and how far apart two sets of images lie in one.

    found = distances(random_resnet18(), batches_a, batches_b)
    found["frechet"], found["kernel"]["value"], found["n"], found["space"]

A distance means something in its space alone, so that the space's name is said wherever the number is. The name FID
is kept for the space of the standard Inception weights. Images are read once, batch by batch, over all devices; of
their features, sums and a sample are kept.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from soda_jax.evaluation import frechet
from soda_jax.evaluation.features import Extractor
from soda_jax.evaluation.kernel_distance import SUBSETS, Sample, kernel_distance
from soda_jax.methods.base import to_float
from soda_jax.nn import inception as network
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.torch_weights import read
from soda_jax.types import Batch, Bytes, Features, Image, Tree

# of the file pt_inception-2015-12-05-6726825d.pth, whose network every published FID is measured with
FID_WEIGHTS = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION = "inception_2015_12_05"
POINT = "point"
SEED = 0  # of the random network, and of which features the kernel distance keeps
Batches = Iterable[Batch | UInt8[np.ndarray, "_ h w c"]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Where images become points.

    name: printed and stored beside every number; another space has another name.
    features: pure, (variables, uint8 images [b, h, w, c]) -> [b, d].
    variables: of the network.
    size: side of the images that it takes, in pixels; None: any.
    channels: of them.
    """

    name: str
    features: Callable[[Tree, Bytes], Float[Array, "b d"]]
    variables: Tree
    size: int | None = None
    channels: int = 3

    @cached_property
    def extractor(self) -> Extractor:
        """Compiled once; in full float32 on any device, where accelerators would round to fewer digits."""

        def encode(variables: Tree, images: Bytes) -> Features:
            with jax.default_matmul_precision("highest"):
                return {POINT: self.features(variables, images)}

        return Extractor(encode, (POINT,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What is kept of a set of images in a space."""

    space: str
    moments: frechet.Moments
    sample: Sample


def distances(space: Space, a: Batches, b: Batches) -> dict[str, Any]:
    """How far two sets of images are apart: `compared` of `measured`, which see.

    {"space", "n": {"a", "b"}, "frechet", "kernel": {"value", "ci95", "subsets", "images_a_subset"} or None (too few
    images), "cautions": [text]}
    """
    return compared(measured(space, a, SEED), measured(space, b, SEED + 1))


def measured(space: Space, batches: Batches, seed: int = SEED) -> Measured:
    """One set of images in a space, read once.

    Args:
      space: where.
      batches: uint8 [b, h, w, c], all but the last of one size; or those of `data.pipeline.evaluation_batches`. Of
        several processes each gives its own rows, equally many.
      seed: of the images that the kernel distance looks at; to be another one for the other set, so that of two sets
        that are made of the same images not the same ones are compared.

    Raises ValueError where there is no image, or a feature that is not finite.
    """
    sample = Sample(seed)

    def watched() -> Iterator[Float[np.ndarray, "_ d"]]:
        for piece in space.extractor.stream(space.variables, as_batches(batches)):
            sample.add(piece["features"][POINT])
            yield piece["features"][POINT]

    return Measured(space=space.name, moments=frechet.gathered(watched()), sample=sample)


def compared(a: Measured, b: Measured) -> dict[str, Any]:
    """What `distances` returns. ValueError for different spaces, and for fewer than two images."""
    if a.space != b.space:
        raise ValueError(f"sets that were measured in {a.space} and in {b.space} cannot be compared")
    least = min(a.moments.count, b.moments.count)
    few = [] if least >= 2 * SUBSETS else [f"{least} images are too few for the kernel distance"]
    return {
        "space": a.space,
        "n": {"a": a.moments.count, "b": b.moments.count},
        "frechet": frechet.frechet_distance(a.moments, b.moments),
        "kernel": None if few else _kernel(a.sample, b.sample),
        "cautions": frechet.cautions(a.moments, b.moments) + few,
    }


def _kernel(a: Sample, b: Sample) -> dict[str, Any]:
    found = kernel_distance(a.rows, b.rows)
    named = {"value": found.value, "ci95": list(found.interval), "subsets": found.subsets}
    return {**named, "images_a_subset": found.images}


def by_space(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of `distances` of the same two sets, as they are stored: every number under its space's name.

    {"n", "frechet": {name: d^2}, "kernel": {name: ...}, "cautions": {name: [text]}}, and "fid" and "kid" where one of
    the spaces is that of FID.
    """
    found = list(found)
    named = {key: {one["space"]: one[key] for one in found} for key in ("frechet", "kernel", "cautions")}
    standard = {"fid": named["frechet"], "kid": named["kernel"]}
    said = {key: values[INCEPTION] for key, values in standard.items() if INCEPTION in values}
    return {"n": found[0]["n"], **named, **said}


def as_batches(batches: Batches) -> Iterator[Batch]:
    """Plain arrays as batches of one size, the last one filled up; others as they are."""
    size = 0
    for batch in batches:
        if isinstance(batch, Mapping):
            yield batch
            continue
        size = max(size, len(batch))
        filling = ((0, size - len(batch)), (0, 0), (0, 0), (0, 0))
        valid = np.arange(size) < len(batch)
        yield {"image": np.pad(batch, filling), "labels": {}, "index": np.where(valid, 0, -1), "valid": valid}


# Spaces ---------------------------------------------------------------------------------------------------


def inception(path: str | Path) -> Space:
    """The space of FID, from its PyTorch weights; of other weights of that network, a space named after their hash.

    Raises:
      FileNotFoundError, ValueError: the file is missing, damaged, or of another network; the message names the key.
    """
    variables = network.converted(read(path), path)

    def features(variables: Tree, images: Bytes) -> Float[Array, "b d"]:
        return network.Inception().apply(variables, network.prepared(images))[1]["pool3"]

    return Space(name=inception_name(path), features=features, variables=variables)


def inception_name(path: str | Path, standard: str = FID_WEIGHTS) -> str:
    """What the space of a file is called; `standard` is the SHA-256 of the one file whose distance is FID."""
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return INCEPTION if digest == standard else f"inception_{digest[:8]}"


def random_resnet18() -> Space:
    """A ResNet-18 that was never trained: the same for every model under test, and no judge of its own case.

    Kernels are drawn with variance 2 / inputs; BatchNorm has the statistics of made-up images from smooth to rough.
    """
    module, variables = random_network()

    def features(variables: Tree, images: Bytes) -> Float[Array, "b d"]:
        return module.apply(variables, in_colour(to_float(images)), train=False)[1]["pooled"]

    return Space(name="random_resnet18", features=features, variables=variables)


@cache
def random_network() -> tuple[ResNet, Tree]:
    """It and its variables."""
    module = ResNet(depth=18, latent_dim=1, stem="strided")
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    rng = np.random.default_rng(SEED)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (rng.normal(size=leaf.shape) * spread).astype(np.float32)
        return np.full(leaf.shape, float(path[-1].key in ("scale", "var")), np.float32)

    variables = jax.tree.map_with_path(draw, abstract)
    with jax.ensure_compile_time_eval():  # also where the first who asks is being traced
        statistics = seen_statistics(module, variables, jnp.asarray(made_up_images()))
    return module, {**variables, "batch_stats": statistics}


def seen_statistics(module: ResNet, variables: Tree, images: Image) -> Tree:
    """BatchNorm's statistics of these images: a running mean moves by a tenth of the way to them in one step."""

    def step(variables: Tree, images: Image) -> Tree:
        return module.apply(variables, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    with jax.default_matmul_precision("highest"):
        moved = jax.jit(step)(variables, images)
    return jax.tree.map(lambda new, old: np.asarray((new - 0.9 * old) / 0.1), moved, variables["batch_stats"])


def made_up_images() -> Float[np.ndarray, "64 32 32 3"]:
    """In [-1, 1]: noise, blown up from 2 x 2 to 32 x 32 cells."""
    rng = np.random.default_rng(SEED)
    images = []
    for i in range(64):
        cells = 2 ** (1 + i % 5)
        places = (np.arange(32) + 0.5) * cells / 32 - 0.5
        near = np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0)
        near /= near.sum(1, keepdims=True)
        images.append(np.einsum("ih,jw,hwc->ijc", near, near, rng.uniform(-1, 1, (cells, cells, 3))))
    return np.stack(images).astype(np.float32)


def in_colour(images: Image) -> Float[Array, "b h w 3"]:
    """Grey images repeated three times."""
    return jnp.tile(images, (1, 1, 1, 3 // images.shape[-1]))
