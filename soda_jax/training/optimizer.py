"""AdamW (arXiv 1711.05101), Muon or SGD with momentum, with clipping, weight decay, and a faster encoder.

g  <- g min(1, clip / |g|)                                        (1)
u   = m / (sqrt(v) + 1e-8) + weight_decay p                       (2)  adamw; m, v: bias-corrected moments
p  <- p - rate(step) r u,   r = encoder_ratio in the encoder, else 1      (3)
rate = learning_rate min(1, (step + 1) / warmup) s                        (4)
       s = (1 + cos(pi progress)) / 2  cosine;  step_factor^(number of `step_at` that are past)  steps;  1  constant
ema <- d ema + (1 - d) p,   d = min(decay, (1 + step) / (10 + step))      (5)  ramp "tens"
                            d = min(decay, 1 - (1 + step)^(-2/3))         (6)  ramp "power", as DDAE's authors average
                            d = 1 - min(1 - decay, (1 + step) / (100 + step))  (8)  ramp "mmcv", as RepFusion's do
b  <- momentum b + g,   u = b,  or with nesterov  g + momentum b          (9)  sgd, as PyTorch has it

With muon, u of some kernels is that of `muon.py`; of all other arrays, (2).
The decay of (2) is decoupled; "l2" adds weight_decay p to g instead, before the moments and after (1), as PyTorch's SGD
does. It pulls on arrays of more than one axis, or on all. With `hold_images` the rate stays for so many images (an
epoch): warm-up and steps of (4) are those of their last step, the cosine is that of their first, as PyTorch's
schedulers do when they are stepped once an epoch. (8) is 1 % at its least, so that from a decay of 0.99 on it is no
ramp at all: such an average remembers where it began.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from soda_jax.training.muon import labels, scale_by_muon
from soda_jax.types import Tree

RAMPS = ("tens", "power", "mmcv")
# Kernels of the denoiser, but for those that read a time, labels or z: Muon is for hidden layers.
ORTHOGONAL = r"^denoiser/(?!.*(time|norm|modulation|labels)).*kernel$"
_LEGAL = {"name": ("adamw", "muon", "sgd"), "schedule": ("constant", "cosine", "steps")}
_LEGAL |= {"decay": ("decoupled", "l2"), "decayed": ("kernels", "all")}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Rates are per update; lengths are in images, so that they survive another batch size.

    clip: largest global gradient norm, 0 = no clipping. total_images ends the cosine (train.images). orthogonal: a
    regular expression, of the names of the arrays whose updates Muon makes orthogonal.
    Raises ValueError on values that cannot train, naming the config key.
    """

    name: str = "adamw"  # adamw | muon | sgd
    learning_rate: float = 1e-4
    encoder_ratio: float = 2.0
    b1: float = 0.9
    b2: float = 0.95
    momentum: float = 0.9  # of muon and sgd
    nesterov: bool = False
    orthogonal: str = ORTHOGONAL
    weight_decay: float = 0.05
    decay: str = "decoupled"  # decoupled | l2
    decayed: str = "kernels"  # kernels (arrays of more than one axis) | all
    clip: float = 1.0
    warmup_images: int = 0
    schedule: str = "constant"  # constant | cosine | steps
    step_at: tuple[float | int, ...] = (0.5, 0.75)  # of steps: shares of total_images, below 1, or images
    step_factor: float = 0.1
    hold_images: int = 0  # the rate changes every so many images only; 0: with every update
    total_images: int
    batch: int

    def __post_init__(self):
        for key, legal in _LEGAL.items():
            _require(getattr(self, key) in legal, f"optimizer.{key}", "|".join(legal), getattr(self, key))
        _require(self.learning_rate > 0, "optimizer.learning_rate", "more than 0", self.learning_rate)
        _require(self.encoder_ratio >= 0, "optimizer.encoder_ratio", "0 or more", self.encoder_ratio)
        _require(0 <= self.b1 < 1, "optimizer.b1", "in [0, 1)", self.b1)
        _require(0 <= self.b2 < 1, "optimizer.b2", "in [0, 1)", self.b2)
        _require(self.weight_decay >= 0, "optimizer.weight_decay", "0 or more", self.weight_decay)
        _require(self.clip >= 0, "optimizer.clip", "0 (none) or more", self.clip)
        _require(self.warmup_images >= 0, "optimizer.warmup_images", "0 or more", self.warmup_images)
        _require(self.hold_images >= 0, "optimizer.hold_images", "0 (never) or more", self.hold_images)
        _require(self.batch > 0, "train.batch", "more than 0", self.batch)
        _require(self.total_images > 0, "train.images", "more than 0", self.total_images)
        self._check_sgd_and_steps()

    def _check_sgd_and_steps(self) -> None:
        _require(0 <= self.momentum < 1, "optimizer.momentum", "in [0, 1)", self.momentum)
        nesterov = not self.nesterov or (self.name != "adamw" and self.momentum > 0)
        expected = "False without muon or sgd and a momentum above 0"
        _require(nesterov, "optimizer.nesterov", expected, self.nesterov)
        times = [self.total_images * at if at < 1 else at for at in self.step_at]
        rising = bool(times) and all(a < b for a, b in itertools.pairwise([0, *times]))
        _require(rising, "optimizer.step_at", "rising shares below 1, or images", self.step_at)
        _require(0 < self.step_factor <= 1, "optimizer.step_factor", "in (0, 1]", self.step_factor)

    @property
    def milestones(self) -> tuple[int, ...]:
        """Updates before each fall of the rate."""
        return tuple(
            math.ceil((self.total_images * at if at < 1 else at) / self.batch) for at in self.step_at
        )

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
    mask = decays if config.decayed == "kernels" else None
    moments, decay = moments_of(config), optax.add_decayed_weights(config.weight_decay, mask=mask)
    return optax.chain(
        clip,
        *((moments, decay) if config.decay == "decoupled" else (decay, moments)),
        scale_parts({"encoder": config.encoder_ratio}),
        *([scale_parts(rates)] if rates else []),
        optax.scale_by_learning_rate(learning_rate(config)),
    )


def moments_of(config: OptimizerConfig) -> optax.GradientTransformation:
    """What (2) or (9) makes of the gradient, decay apart."""
    if config.name == "sgd":
        return optax.trace(config.momentum, nesterov=config.nesterov)
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=1e-8)
    if config.name == "adamw":
        return adam
    muon = scale_by_muon(config.momentum, nesterov=config.nesterov)
    return optax.partition({"muon": muon, "adam": adam}, functools.partial(labels, pattern=config.orthogonal))


def learning_rate(config: OptimizerConfig) -> Callable:
    """(4): step -> the denoiser's rate."""
    warmup, total = config.warmup_steps, config.total_steps
    held = max(-(-config.hold_images // config.batch), 1)

    def rate(step):
        first = step - step % held
        ramp = jnp.minimum(1.0, (first + held) / max(warmup, 1))
        if config.schedule == "constant":
            return config.learning_rate * ramp
        if config.schedule == "steps":
            past = jnp.sum(first + held - 1 >= jnp.asarray(config.milestones))
            return config.learning_rate * ramp * config.step_factor**past
        progress = jnp.clip((first - warmup) / max(total - warmup, 1), 0.0, 1.0)
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

    ramp: "tens", (5), "power", (6), which reaches 0.9999 after a million updates only, or "mmcv", (8).
    batch_stats: whether BatchNorm's statistics are averaged too, which are averages already; False: they are those of
    the newest step, as with mmcv. Raises ValueError for a decay outside of [0, 1), or another ramp.
    """

    decay: float
    ramp: str = "tens"
    batch_stats: bool = True

    def __post_init__(self):
        _require(0 <= self.decay < 1, "ema.decay", "0 or more and below 1", self.decay)
        _require(self.ramp in RAMPS, "ema.ramp", "|".join(RAMPS), self.ramp)

    def at(self, step: jax.Array) -> jax.Array:
        """d of the update after so many."""
        if self.ramp == "mmcv":
            return 1.0 - jnp.minimum(1.0 - self.decay, (1.0 + step) / (100.0 + step))
        tens = (1.0 + step) / (10.0 + step)
        return jnp.minimum(self.decay, tens if self.ramp == "tens" else 1.0 - (1.0 + step) ** (-2 / 3))

    def of_statistics(self, average: Tree, new: Tree, decay: jax.Array) -> Tree:
        """The average of what moves by other ways than gradients, after an update with this d."""
        return ema_update(average, new, decay) if self.batch_stats else new


def ema_update(average: Tree, new: Tree, decay: jax.Array) -> Tree:
    """(5) for a whole tree."""
    return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), average, new)


def _require(good: bool, key: str, expected: str, found) -> None:
    if not good:
        raise ValueError(f"{key} must be {expected}, found {found!r}")
