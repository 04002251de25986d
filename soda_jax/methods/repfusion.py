"""RepFusion (arXiv 2308.10916): a student learns the features of a frozen diffusion net, at a time chosen by image.

    a    ~ fixed, uniform or pi(. | x)                          (1)  time_choice.py; actions 0 .. T - 1
    h    = teacher(x, t_{a+1}) at its tap, of the clean image   (2)  no gradient; t_1 is the least noise
           x in [-1, 1], or as classifiers see ImageNet: ((x + 1) / 2 - mean) / deviation of each channel
    L    = w distance(s, h) + what choosing adds                (3)  distances.py; s: the student's last map

The teacher (ddae.py) is the collection `frozen` of the variables: it lies in the state, so that checkpoints are whole,
and no step changes it. Student, projection, head and policy are trained together. What is probed and exported is the
student alone; its features are the pooled ones, which count as z as well.
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from soda_jax.methods.base import FROZEN, UNAVERAGED, BatchSpec, Scalar, encoder_variables, stream, to_float
from soda_jax.methods.ddae import DDAE
from soda_jax.methods.distances import Kind, Map, distance, pool
from soda_jax.methods.reading import Reading
from soda_jax.methods.siamese import applied
from soda_jax.methods.time_choice import TimeChoice, shares
from soda_jax.nn.ddpm_blocks import KERNEL, bias_init
from soda_jax.types import Batch, Bytes, Features, Image, Keys, Tree

ACTION = 0  # stream of one example's key
Input = Literal["symmetric", "imagenet"]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, in 0..1


@dataclass(frozen=True, kw_only=True)
class RepFusion(Reading):
    """A student, which is the `encoder`, with a property `last_map`, and its teacher.

    teacher_shape: [h, w, c] of the images that the teacher knows; those of the student are scaled to it.
    distance, weight: of (3). choice: of (1). input: which x of (2). ValueError for a weight below 0, and for "imagenet"
    where images are not RGB.
    """

    teacher: DDAE
    teacher_shape: tuple[int, int, int]
    choice: TimeChoice
    distance: Kind = "hint"
    weight: float = 1.0
    input: Input = "symmetric"

    def __post_init__(self):
        super().__post_init__()
        if self.input == "imagenet" and self.teacher_shape[-1] != 3:
            raise ValueError(
                f"repfusion.input='imagenet' is for data.channels=3, found {self.teacher_shape[-1]}: take symmetric"
            )
        if not self.weight >= 0:
            raise ValueError(f"repfusion.weight must be 0 or more, found {self.weight}")

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables; the teacher is an untrained one till a trained one is put in its place."""
        keys = jax.random.split(key, 4)
        shape = spec["source"].shape[1:]
        image = jnp.zeros((1, *shape))
        (_, features), encoder = self.encoder.init_with_output(keys[0], image, train=False)
        known = {"target": jax.ShapeDtypeStruct((1, *self.teacher_shape), jnp.uint8)}
        teacher = {"teacher": self.teacher.init(keys[1], known)["params"]}
        h = self.teacher_map({FROZEN: teacher}, image, jnp.zeros(1, jnp.int32))
        s = features[self.encoder.last_map]
        projection = self.projection(h.shape[-1], s.shape[-1]).init(keys[2], s)["params"]
        params = {"encoder": encoder["params"], "projection": projection}
        params |= self.choice.params(keys[3], shape, h.shape[-1])
        stats = {"encoder": encoder["batch_stats"]} if "batch_stats" in encoder else {}
        memory = {FROZEN: teacher, UNAVERAGED: {"updates": jnp.int32(0)}}
        return {"params": params, "batch_stats": {**stats, **memory}}

    def projection(self, features: int, fan_in: int) -> nn.Module:
        """P: a linear layer at every pixel."""
        return nn.Dense(features, kernel_init=KERNEL, bias_init=bias_init(fan_in))

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(3), averaged."""
        params, stats = variables["params"], variables["batch_stats"]
        images = to_float(batch["source"])
        (_, features), moved = applied(self.encoder, encoder_variables(variables), images, train)
        chosen = self.choice.choose(params, images, stream(keys, ACTION))
        h = self.teacher_map(stats, images, chosen.action)
        s = features[self.encoder.last_map].astype(jnp.float32)
        projected = self.projection(h.shape[-1], s.shape[-1]).apply({"params": params["projection"]}, s)
        apart = self.weight * distance(self.distance, s, projected, h)
        more, logged = self.choice.loss(
            params, chosen, pool(h), batch["labels"], stats[UNAVERAGED]["updates"]
        )
        metrics = {"distance": apart, "entropy": jnp.mean(chosen.entropy), **logged}
        metrics |= {"mean_t": jnp.mean(chosen.action.astype(jnp.float32))}
        metrics |= shares("t", chosen.action, self.teacher.levels)
        after = {**stats, **({"encoder": moved} if train and moved else {})}
        return apart + more, {"metrics": metrics, "batch_stats": after}

    def teacher_map(self, batch_stats: Tree, images: Image, action: Int[Array, " b"]) -> Map:
        """(2) in float32, of images in [-1, 1]."""
        shape = (len(images), *self.teacher_shape)
        images = images if images.shape == shape else jax.image.resize(images, shape, "linear")
        images = imagenet_scaled(images) if self.input == "imagenet" else images
        t = (action + 1) / self.teacher.levels
        found = self.teacher.maps({"params": batch_stats[FROZEN]["teacher"]}, images, t, None)
        return jax.lax.stop_gradient(found[self.teacher.tap].astype(jnp.float32))

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """The student's features; "z" is "pooled"."""
        features = super().encode(variables, images)
        return {**features, "z": features["pooled"]}

    def after_step(self, params: Tree, batch_stats: Tree) -> Tree:
        """Counts the updates, for the weight of the entropy."""
        del params
        return {**batch_stats, UNAVERAGED: {"updates": batch_stats[UNAVERAGED]["updates"] + 1}}


def imagenet_scaled(images: Image) -> Image:
    """RGB in [-1, 1] less the mean of ImageNet, in its deviations."""
    mean, deviation = (jnp.asarray(x)[None, None, None] for x in (MEAN, DEVIATION))
    return ((images + 1) / 2 - mean) / deviation
