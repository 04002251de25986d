"""DDAE (arXiv 2303.09769): the activations of a net that learned to generate, without a latent, are features.

    xt   = alpha x0 + sigma eps,  eps ~ N(0, I)                     (1)
    L    = the framework's, of the net's answer to xt               (2)   diffusion/frameworks.py
    f(x) = mean over the pixels of block k, given x at level t      (3)   what is probed; k and t by a search
    eps^ = (1 + w) eps(xt, t, class) - w eps(xt, t, null class)     (4)   guidance (arXiv 2207.12598)

Levels of features are whole numbers, 1 (almost clean) to T (noise), the T of the schedule: `linear` in 1000 steps for
DDPM, `edm` in 18 for EDM, as the paper counts. Noise is drawn anew for every image, in `encode` from a key that is made
of the image's own bytes: so that an image has the same features in whichever batch, and on however many devices.

As in the paper, the net is told of no class; a DiT may be, as its own paper (arXiv 2212.09748) trains it: in training
of that of the image, or with a probability of the null class. Features are those under the null class, always: whom a
probe asks, nobody tells the label.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from soda_jax.diffusion.frameworks import Framework, Level
from soda_jax.diffusion.process import PerExample, corrupt_to
from soda_jax.diffusion.sampler_steps import Denoise, Sampler
from soda_jax.diffusion.samplers import sample
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import BatchSpec, Scalar, normal_like, stream, to_float, to_uint8
from soda_jax.methods.edm_augment import Augment
from soda_jax.methods.masking import Guidance, check_probability, steered
from soda_jax.types import Batch, Bytes, Features, Image, Keys, Labels, Tree

Number = Float[Array, ""]

LEVEL, NOISE, DROPOUT, AUGMENT, CLASS = range(5)  # streams of one example's key
GOLDEN = 0x9E3779B1  # an odd number whose multiples are spread evenly over 32 bits


@dataclass(frozen=True, kw_only=True)
class DDAE:
    """A diffusion net, and where its features are read.

    denoiser: `(seen, told, train, labels) -> (answer, features)`, features being maps by name; `middle` names the one
        that is "pooled", and `tapped` makes an encoder of the net up to one of them. With a `class_count` that is not
        0 it takes `classes` [b] as well, 0 .. class_count, the last being the null class, as None is.
    tap, level: k and t of (3). draws: of noise, whose features are averaged; 0: the net sees the clean image.
    class_dropout: probability in [0, 1) that the net is told the null class in training.
    Raises ValueError for a level that the schedule does not have, fewer than 0 draws, or what is no such probability.
    """

    denoiser: nn.Module
    framework: Framework
    tap: str = "out_6"
    level: int = 11
    draws: int = 1
    augment: Augment | None = None  # of training images, told to the net, whose label_dim is LABELS
    class_dropout: float = 0.1
    tap_key: str = "ddae.tap"  # how errors name it

    def __post_init__(self):
        if not 1 <= self.level <= self.levels:
            raise ValueError(f"ddae.level must be 1 to diffusion.steps = {self.levels}, found {self.level}")
        if self.draws < 0:
            raise ValueError(f"ddae.draws must be 0 (clean images) or more, found {self.draws}")
        check_probability("ddae.class_dropout", self.class_dropout)

    @property
    def schedule(self) -> Schedule:
        """Of its samplers, and of the levels."""
        return self.framework.schedule

    @property
    def levels(self) -> int:
        """T"""
        return self.schedule.steps

    @property
    def class_count(self) -> int:
        """How many classes the net can be told of; 0: of none."""
        return getattr(self.denoiser, "class_count", 0)

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables. ValueError where the net has no such tap."""
        image = jnp.zeros((1, *spec["target"].shape[1:]))
        (_, features), denoiser = self.denoiser.init_with_output(key, image, jnp.zeros(1), train=False)
        if self.tap not in features:
            raise ValueError(f"{self.tap_key}: expected one of {', '.join(features)}, found {self.tap!r}")
        return {"params": {"denoiser": denoiser["params"]}, "batch_stats": {}}

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(2), averaged. Without `train` there is no dropout, of classes neither.

        With classes, batch["labels"] int `[b, 1]` holds those of the images: of several labels the first is told.
        """
        x0, labels = to_float(batch["target"]), None
        if self.augment and train:
            x0, labels = self.augment(stream(keys, AUGMENT), x0)
        eps, level = normal_like(stream(keys, NOISE), x0), self.framework.draw(stream(keys, LEVEL))
        dropout = {"dropout": jax.random.fold_in(keys[0], DROPOUT)} if train else None
        told = (level, train, dropout, labels, self.classes(batch, keys, train))
        answer, _ = self.answer(variables, corrupt_to(level.logsnr, x0, eps), *told)
        loss = jnp.mean(self.framework.losses(answer, x0, eps, level))
        return loss, {"metrics": {}, "batch_stats": variables["batch_stats"]}

    def classes(self, batch: Batch, keys: Keys, train: bool) -> Labels | None:
        """What the net is told in training, each example by a draw of its own; None: it can be told nothing."""
        if not self.class_count:
            return None
        labels = batch["labels"][:, 0]
        if not train:
            return labels
        dropped = jax.vmap(lambda key: jax.random.bernoulli(key, self.class_dropout))(stream(keys, CLASS))
        return jnp.where(dropped, self.class_count, labels)

    def answer(
        self,
        variables: Tree,
        xt: Image,
        level: Level,
        train: bool = False,
        rngs: dict | None = None,
        labels: Float[Array, "b n"] | None = None,
        classes: Labels | None = None,
    ) -> tuple[Image, Features]:
        """What the net says of xt, and its maps; labels of an augmentation, None: there was none.

        classes: None: of all the null class, which a net without classes is always told.
        """
        seen = self.framework.seen(xt, level)
        net = {"params": variables["params"]["denoiser"]}
        more = {} if classes is None else {"classes": classes}
        return self.denoiser.apply(net, seen, level.told, train=train, labels=labels, rngs=rngs, **more)

    def maps(self, variables: Tree, images: Image | Bytes, t: PerExample, keys: Keys | None) -> Features:
        """Every map of the net by name, of images at times t in (0, 1]; keys None: it sees them clean."""
        x0, level = to_float(images), self.framework.at(t)
        xt = self.framework.clean(x0, level)
        if keys is not None:
            xt = corrupt_to(level.logsnr, x0, normal_like(keys, x0))
        return self.answer(variables, xt, level)[1]

    def pooled(self, variables: Tree, images: Image | Bytes, t: PerExample, keys: Keys | None) -> Features:
        """(3) of every block, `[b, c]` in float32."""
        found = self.maps(variables, images, t, keys)
        return {name: jnp.mean(x.astype(jnp.float32), (1, 2)) for name, x in found.items()}

    def layers(self, variables: Tree, images: Image | Bytes, t: float | Number) -> Features:
        """(3) of every block at this time, averaged over the draws."""
        times = jnp.full(len(images), t)
        if not self.draws:
            return self.pooled(variables, images, times, None)
        keys = content_keys(images)
        found = [self.pooled(variables, images, times, stream(keys, i)) for i in range(self.draws)]
        return jax.tree.map(lambda *draws: sum(draws) / self.draws, *found)

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """(3) of every block at the level; also as "z", of the tap, and "pooled", of the middle."""
        features = self.layers(variables, images, self.level / self.levels)
        return {**features, "z": features[self.tap], "pooled": features[self.denoiser.middle]}

    def tapped(self) -> nn.Module:
        """The net up to the tap, as an encoder of clean images at the level; its parameters are some of the net's."""
        level = self.framework.at(jnp.full(1, self.level / self.levels))
        scale = self.framework.seen(self.framework.clean(jnp.ones((1, 1, 1, 1)), level), level).item()
        return self.denoiser.tapped(self.tap, scale, level.told.item())

    def denoise(
        self, variables: Tree, xt: Image, t: Float[Array, " b"], classes: Labels | None = None
    ) -> Image:
        """eps, in eval mode, whatever the net answers; classes as of `answer`."""
        level = self.framework.at(t)
        return self.framework.eps(self.answer(variables, xt, level, classes=classes)[0], xt, level)

    def guided_denoise(
        self, variables: Tree, classes: Labels | None = None, guidance: Guidance | float = 0.0
    ) -> Denoise:
        """`denoise` as a function of (xt, t) alone, led by the classes as (4) says."""

        def unled(xt: Image, t: Float[Array, " b"]) -> Image:
            return self.denoise(variables, xt, t)

        def led(xt: Image, t: Float[Array, " b"]) -> Image:
            return self.denoise(variables, xt, t, classes)

        return unled if classes is None else steered(led, unled, guidance)

    def generate(
        self,
        variables: Tree,
        noise: Image,
        sampler: Sampler,
        key: Key[Array, ""],
        on_step: Callable | None = None,
        *,
        classes: Labels | None = None,
        guidance: Guidance | float = 0.0,
    ) -> Image:
        """Images in [-1, 1] from standard normal noise of their shape; key: for the fresh noise of the sampler.

        classes: of the images, as of `answer`. guidance: of (4), or its w alone; without classes there is none.
        """
        denoise = self.guided_denoise(variables, classes, guidance)
        return sample(denoise, self.schedule, sampler, noise, key, on_step)


def content_keys(images: Image | Bytes) -> Keys:
    """A key of each image, made of its bytes: the same image, the same key."""
    content = (images if images.dtype == jnp.uint8 else to_uint8(images)).reshape(len(images), -1)
    places = jnp.arange(content.shape[1], dtype=jnp.uint32) * jnp.uint32(GOLDEN) + jnp.uint32(1)
    hashed = jnp.sum((content.astype(jnp.uint32) + 1) * (places | 1)[None], axis=1, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(hashed)
