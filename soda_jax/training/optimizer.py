"""AdamW (arXiv 1711.05101) with clipping, decay of matrices only, and a faster encoder.

g  <- g min(1, clip / |g|)                                        (1)
u   = m / (sqrt(v) + 1e-8) + weight_decay p [p has more than one axis]   (2)  m, v: bias-corrected moments
p  <- p - rate(step) r u,   r = encoder_ratio in the encoder, else 1      (3)
rate = learning_rate min(1, (step + 1) / warmup) (1 + cos(pi progress)) / 2   (4)  last factor: cosine only
ema <- d ema + (1 - d) p,   d = min(decay, (1 + step) / (10 + step))      (5)  ramp "tens"
                            d = min(decay, 1 - (1 + step)^(-2/3))         (6)  ramp "power", as DDAE's authors average

With `hold_images` the rate stays for so many images (an epoch) what (4) is at the last step of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from soda_jax.types import Tree


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Rates are per update; lengths are in images, so that they survive another batch size.

    clip: largest global gradient norm, 0 = no clipping. total_images ends the cosine (train.images).
    Raises ValueError on values that cannot train, naming the config key.
    """

    learning_rate: float = 1e-4
    encoder_ratio: float = 2.0
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup_images: int = 0
    schedule: str = "constant"  # constant | cosine
    hold_images: int = 0  # the rate changes every so many images only; 0: with every update
    total_images: int
    batch: int

    def __post_init__(self):
        _require(self.learning_rate > 0, "optimizer.learning_rate", "more than 0", self.learning_rate)
        _require(self.encoder_ratio >= 0, "optimizer.encoder_ratio", "0 or more", self.encoder_ratio)
        _require(0 <= self.b1 < 1, "optimizer.b1", "in [0, 1)", self.b1)
        _require(0 <= self.b2 < 1, "optimizer.b2", "in [0, 1)", self.b2)
        _require(self.weight_decay >= 0, "optimizer.weight_decay", "0 or more", self.weight_decay)
        _require(self.clip >= 0, "optimizer.clip", "0 (none) or more", self.clip)
        _require(self.warmup_images >= 0, "optimizer.warmup_images", "0 or more", self.warmup_images)
        _require(self.hold_images >= 0, "optimizer.hold_images", "0 (never) or more", self.hold_images)
        _require(
            self.schedule in ("constant", "cosine"), "optimizer.schedule", "constant|cosine", self.schedule
        )
        _require(self.batch > 0, "train.batch", "more than 0", self.batch)
        _require(self.total_images > 0, "train.images", "more than 0", self.total_images)

    @property
    def warmup_steps(self) -> int:
        """Steps until the full rate is reached."""
        return -(-self.warmup_images // self.batch)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return -(-self.total_images // self.batch)


def make_optimizer(
    config: OptimizerConfig, rates: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """(1) to (4) as one optax chain. rates: further factors of r, by the beginning of a parameter's name."""
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(
        clip,
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=1e-8),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        scale_parts({"encoder": config.encoder_ratio}),
        *([scale_parts(rates)] if rates else []),
        optax.scale_by_learning_rate(learning_rate(config)),
    )


def learning_rate(config: OptimizerConfig) -> Callable:
    """(4): step -> the denoiser's rate."""
    warmup, total = config.warmup_steps, config.total_steps
    held = max(-(-config.hold_images // config.batch), 1)

    def rate(step):
        step = step - step % held + held - 1
        ramp = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
        if config.schedule == "constant":
            return config.learning_rate * ramp
        progress = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
        return config.learning_rate * ramp * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return rate


def decays(params: Tree) -> Tree:
    """True for the arrays that weight decay pulls on: kernels, not norms or biases."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def scale_parts(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """(3): r, by the beginning of the name: {"encoder/stem": 0.5} halves the updates of that layer."""

    def rate(path: Any) -> float:
        name = "/".join(str(entry.key) for entry in path) + "/"
        return math.prod((factor for part, factor in rates.items() if name.startswith(f"{part}/")), start=1.0)

    def scale(updates, params=None):
        del params
        return jax.tree_util.tree_map_with_path(lambda path, u: rate(path) * u, updates)

    return optax.stateless(scale)


def layer_decay(decay: float, layers: Sequence[str]) -> dict[str, float]:
    """The rates of layers in the order in which they compute: decay^n, n more layers to come, the heads among them.

        r_l = decay^(L - l),  l = 0 .. L - 1                            (7)  BEiT (arXiv 2106.08254)

    Raises ValueError for a decay outside of (0, 1].
    """
    _require(0 < decay <= 1, "finetune.layer_decay", "above 0, and 1 at most", decay)
    return {name: decay ** (len(layers) - place) for place, name in enumerate(layers)}


@dataclass(frozen=True, kw_only=True)
class Ema:
    """The average of the parameters, whose decay d is small at first, so that it forgets the initial values.

    ramp: "tens", (5), or "power", (6), which reaches 0.9999 after a million updates only. Raises ValueError for a decay
    outside of [0, 1), or another ramp.
    """

    decay: float
    ramp: str = "tens"

    def __post_init__(self):
        _require(0 <= self.decay < 1, "ema.decay", "0 or more and below 1", self.decay)
        _require(self.ramp in ("tens", "power"), "ema.ramp", "tens|power", self.ramp)

    def at(self, step: jax.Array) -> jax.Array:
        """d of the update after so many."""
        tens = (1.0 + step) / (10.0 + step)
        return jnp.minimum(self.decay, tens if self.ramp == "tens" else 1.0 - (1.0 + step) ** (-2 / 3))


def ema_update(average: Tree, new: Tree, decay: jax.Array) -> Tree:
    """(5) for a whole tree."""
    return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), average, new)


def _require(good: bool, key: str, expected: str, found) -> None:
    if not good:
        raise ValueError(f"{key} must be {expected}, found {found!r}")
