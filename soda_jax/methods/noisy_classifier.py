"""What an image shows of its class through noise: by features of a DDAE (arXiv 2303.09769), or from scratch.

    n  ~ U{1 .. T},  xt = alpha x0 + sigma eps at level n                                              (1)
    f  = mean over the pixels of the DDAE's tap, given xt at its level n; the net is frozen            (2)
    h  = f + e(n),  logits = Linear(SiLU(Linear(h))), 2 d features between, d those of f               (3)
    or, to compare with: logits = NoisyWideResNet(xt, u),  u = n / T, or log(sigma) of EDM                  (4)
    L  = sum over labels of CE(softmax(logits), y)                                                     (5)

e is the time embedding of the DDAE's U-Net at width d, of the whole number n itself, not of n / T. Training images are
moved by up to `shift` pixels each way, black coming in.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from soda_jax.diffusion.frameworks import EDM
from soda_jax.diffusion.process import corrupt_to
from soda_jax.methods.base import FROZEN, BatchSpec, Scalar, normal_like, stream, to_float
from soda_jax.methods.ddae import DDAE, content_keys
from soda_jax.methods.time_choice import judged
from soda_jax.nn.ddpm_blocks import TimeMLP
from soda_jax.nn.noisy_wide_resnet import NoisyWideResNet
from soda_jax.types import Batch, Bytes, Features, Image, Keys, Tree

Levels = Int[Array, " b"]  # n of (1)
NOISE, LEVEL, SHIFT = range(3)  # streams of one example's key


class NoisyHead(nn.Module):
    """(3), of features [b, d]. ValueError unless 8 divides d."""

    classes: int

    @nn.compact
    def __call__(self, f: Float[Array, "b d"], levels: Levels) -> Float[Array, "b {self.classes}"]:
        d = f.shape[-1]
        if d % 8:
            raise ValueError(
                f"ddae.tap must have a multiple of 8 features for the embedding of time, found {d}"
            )
        h = f + TimeMLP(d // 4, name="time")(levels.astype(jnp.float32))
        return nn.Dense(self.classes, name="dense_1")(nn.silu(nn.Dense(2 * d, name="dense_0")(h)))


@dataclass(frozen=True, kw_only=True)
class NoisyClassifier:
    """One of both kinds.

    ddae: says what noise is; without a `net` of (4) it is what the head (3) reads, and lies in the variables, frozen.
    classes: how many each label has; a batch's "labels" are `[b, labels]`. shift: 0 or more (ValueError).
    """

    ddae: DDAE
    classes: tuple[int, ...]
    net: NoisyWideResNet | None = None
    shift: int = 4

    def __post_init__(self):
        if self.shift < 0:
            raise ValueError(f"noisy_classifier.shift must be 0 or more pixels, found {self.shift}")

    @property
    def head(self) -> NoisyHead:
        """(3)"""
        return NoisyHead(sum(self.classes))

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables; the DDAE is an untrained one till a trained one is put in its place."""
        keys, shape = jax.random.split(key), (1, *spec["source"].shape[1:])
        image, one = jnp.zeros(shape), jnp.ones(1, jnp.int32)
        if self.net:
            return {"params": {"net": self.net.init(keys[0], image, one / 1.0)["params"]}, "batch_stats": {}}
        known = {"target": jax.ShapeDtypeStruct(shape, jnp.uint8)}
        frozen = {FROZEN: {"ddae": self.ddae.init(keys[1], known)["params"]}}
        head = self.head.init(keys[0], self.read(frozen, image, one), one)
        return {"params": {"head": head["params"]}, "batch_stats": frozen}

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(5), averaged."""
        x0 = to_float(batch["source"])
        if train and self.shift:
            x0 = moved(x0, stream(keys, SHIFT), self.shift)
        levels = self.draw(stream(keys, LEVEL))
        logits = self.logits(variables, self.noisy(x0, levels, stream(keys, NOISE)), levels)
        entropies, right = judged(logits, batch["labels"], self.classes)
        metrics = {"accuracy": jnp.mean(right)}
        return jnp.mean(entropies), {"metrics": metrics, "batch_stats": variables["batch_stats"]}

    def draw(self, keys: Keys) -> Levels:
        """n of (1)."""
        return jax.vmap(lambda key: jax.random.randint(key, (), 1, self.ddae.levels + 1))(keys)

    def noisy(self, x0: Image, levels: Levels, keys: Keys) -> Image:
        """xt of (1)."""
        level = self.ddae.framework.at(levels / self.ddae.levels)
        return corrupt_to(level.logsnr, x0, normal_like(keys, x0))

    def read(self, batch_stats: Tree, xt: Image, levels: Levels) -> Float[Array, "b d"]:
        """(2), in float32."""
        level = self.ddae.framework.at(levels / self.ddae.levels)
        features = self.ddae.answer({"params": batch_stats[FROZEN]["ddae"]}, xt, level)[1]
        return jax.lax.stop_gradient(jnp.mean(features[self.ddae.tap].astype(jnp.float32), (1, 2)))

    def logits(self, variables: Tree, xt: Image, levels: Levels) -> Float[Array, "b _"]:
        """(3) or (4), of the classes of all labels."""
        if self.net:
            level = self.ddae.framework.at(levels / self.ddae.levels)
            edm = isinstance(self.ddae.framework, EDM)
            u = -level.logsnr / 2 if edm else level.told
            return self.net.apply({"params": variables["params"]["net"]}, xt, u)
        f = self.read(variables["batch_stats"], xt, levels)
        return self.head.apply({"params": variables["params"]["head"]}, f, levels)

    def scores(self, variables: Tree, images: Image | Bytes, number: Int[Array, ""]) -> Float[Array, "b _"]:
        """Logits of images at this level; their noise is made of the image and the level."""
        levels = jnp.full(len(images), number)
        keys = jax.vmap(jax.random.fold_in)(content_keys(images), levels)
        return self.logits(variables, self.noisy(to_float(images), levels, keys), levels)

    def answers(self, variables: Tree, images: Image | Bytes, number: Int[Array, ""]) -> Features:
        """{"answers"}: the likeliest class of each label at this level, `[b, labels]`, as floats."""
        parts = jnp.split(self.scores(variables, images, number), np.cumsum(self.classes)[:-1].tolist(), -1)
        return {"answers": jnp.stack([jnp.argmax(part, -1) for part in parts], -1).astype(jnp.float32)}

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """The logits under the least noise, as "z" and "pooled"."""
        z = self.scores(variables, images, jnp.int32(1))
        return {"z": z, "pooled": z}


def moved(images: Image, keys: Keys, most: int) -> Image:
    """Each image by -most .. most pixels either way; what comes in is black, -1."""
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), constant_values=-1.0)

    def cut(image: Float[Array, "h2 w2 c"], key: Key[Array, ""]) -> Float[Array, "h w c"]:
        row, column = jax.random.randint(key, (2,), 0, 2 * most + 1)
        return jax.lax.dynamic_slice(image, (row, column, 0), images.shape[1:])

    return jax.vmap(cut)(padded, keys)
