"""Dense tasks: a head on an encoder's maps that answers for pixels or for points, on labels of these.

    segmentation   L = CE(f) + w sum over early answers e of CE(e)                                      (1)
                   CE: the mean over an image's labelled pixels, then over the batch
    landmarks      L = mean over points and pixels of maps of l_k (H'_k - H_k)^2                        (2)
                   l_k: whether point k is labelled; H: nn/heat_maps.py (2)

The encoder is trained along, or frozen: then it computes as in evaluation and no gradient reaches it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from soda_jax.methods.base import BatchSpec, Scalar, encoder_variables, to_float
from soda_jax.methods.reading import Reading, layer_names
from soda_jax.methods.siamese import applied, by_collection, part
from soda_jax.nn.dense_heads import maps_of
from soda_jax.nn.heat_maps import Decoding, Points, decode, heat_maps, to_image, to_map
from soda_jax.types import Batch, Bytes, Image, Keys, Tree

IGNORED = 255  # in a mask: no class
UNUSED = ("head", "norm")  # layers of encoders that come after their maps


@dataclass(frozen=True, kw_only=True)
class Dense(Reading):
    """What both tasks share.

    head: `(images, maps, train) -> answer`, maps being those that the encoder's `pyramid` names.
    frozen: whether the encoder stays as it is; its weight decay is the optimiser's to leave out.
    """

    head: nn.Module
    frozen: bool = False

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables."""
        keys = jax.random.split(key)
        image = jnp.zeros((1, *spec["source"].shape[1:]))
        (_, features), encoder = self.encoder.init_with_output(keys[0], image, train=False)
        head = self.head.init(keys[1], image, maps_of(self.encoder, features), train=False)
        return by_collection({"encoder": encoder, "heads": head})

    def layers(self, spec: BatchSpec) -> list[str]:
        """The encoder's layers that lead to its maps, as "encoder/<name>", in the order in which they compute."""
        names = layer_names(self.encoder, spec["source"].shape[1:])
        return [f"encoder/{name}" for name in names if name not in UNUSED]

    def answer(
        self, variables: Tree, images: Image | Bytes, train: bool, dropout: Any = None
    ) -> tuple[Any, Tree]:
        """What the head says, and the statistics after this batch (as they were when not training)."""
        seen, moving = to_float(images), train and not self.frozen
        (_, features), encoder = applied(self.encoder, encoder_variables(variables), seen, moving, dropout)
        maps = maps_of(self.encoder, features)
        maps = jax.lax.stop_gradient(maps) if self.frozen else maps
        mutable = ["batch_stats"] if train else []
        out, new = self.head.apply(part(variables, "heads"), seen, maps, train=train, mutable=mutable)
        moved = {"encoder": encoder} if encoder else {}
        moved |= {"heads": new["batch_stats"]} if new else {}
        return out, {**variables["batch_stats"], **moved}


@dataclass(frozen=True, kw_only=True)
class Segmentation(Dense):
    """A batch's "mask" is uint8 `[b, h, w]`, of classes or IGNORED. auxiliary: w of (1). ValueError below 0."""

    auxiliary: float = 1.0
    task: ClassVar[str] = "segmentation"

    def __post_init__(self):
        super().__post_init__()
        if not self.auxiliary >= 0:
            raise ValueError(f"dense.auxiliary must be 0 or more, found {self.auxiliary}")

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(1), and the share of labelled pixels that are right."""
        (logits, early), stats = self.answer(variables, batch["source"], train, keys[0])
        mask = batch["mask"]
        loss = jnp.mean(cross_entropy(logits, mask))
        for answer in early:
            loss += self.auxiliary * jnp.mean(cross_entropy(answer, mask))
        right = labelled_mean((jnp.argmax(logits, -1) == mask).astype(jnp.float32), mask)
        return loss, {"metrics": {"accuracy": jnp.mean(right)}, "batch_stats": stats}

    def predict(self, variables: Tree, images: Image | Bytes) -> Int[Array, "b h w"]:
        """The likeliest class of each pixel, in eval mode."""
        (logits, _), _ = self.answer(variables, images, train=False)
        return jnp.argmax(logits, -1)


@dataclass(frozen=True, kw_only=True)
class Landmarks(Dense):
    """A batch's "points" are `[b, k, 2]` in pixels of the source, its "seen" `[b, k]` 0 where there is no label.

    sigma: of the heat maps, in their pixels. decoding: how points are read from them. ValueError for no width.
    """

    sigma: float = 2.0
    decoding: Decoding = "soft"
    task: ClassVar[str] = "landmarks"

    def __post_init__(self):
        super().__post_init__()
        if not self.sigma > 0:
            raise ValueError(f"dense.sigma must be more than 0, found {self.sigma}")

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(2), and by how many pixels of the source labelled points are missed."""
        maps, stats = self.answer(variables, batch["source"], train, keys[0])
        side, size = maps.shape[1], batch["source"].shape[1]
        labelled = (batch["seen"] > 0).astype(jnp.float32)
        truth = heat_maps(to_map(batch["points"], side, size), side, self.sigma)
        loss = jnp.mean(labelled * jnp.mean(jnp.square(maps - truth), (1, 2)))
        apart = jnp.linalg.norm(self.read(maps, size) - batch["points"], axis=-1)
        missed = jnp.sum(apart * labelled, -1) / jnp.maximum(labelled.sum(-1), 1.0)
        return loss, {"metrics": {"pixels": jnp.mean(missed)}, "batch_stats": stats}

    def read(self, maps: Float[Array, "b h w k"], size: int) -> Points:
        """The points of heat maps, in pixels of an image of this size."""
        return to_image(decode(maps, self.decoding), maps.shape[1], size)

    def predict(self, variables: Tree, images: Image | Bytes) -> Points:
        """Where each point is, in pixels of the images, in eval mode."""
        maps, _ = self.answer(variables, images, train=False)
        return self.read(maps, images.shape[1])


def cross_entropy(logits: Float[Array, "b h w k"], mask: UInt8[Array, "b h w"]) -> Float[Array, " b"]:
    """CE of (1), of each image."""
    log, k = jax.nn.log_softmax(logits), logits.shape[-1]
    return labelled_mean(-jnp.sum(log * jax.nn.one_hot(mask, k), -1), mask)


def labelled_mean(values: Float[Array, "b h w"], mask: UInt8[Array, "b h w"]) -> Float[Array, " b"]:
    """Over the labelled pixels of each image; 0 where there are none."""
    labelled = (mask != IGNORED).astype(jnp.float32)
    return jnp.sum(values * labelled, (1, 2)) / jnp.maximum(jnp.sum(labelled, (1, 2)), 1.0)
