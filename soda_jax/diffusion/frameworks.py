"""What a diffusion without a latent is trained and asked by: DDPM (arXiv 2006.11239) or EDM (2206.00364).

A network F sees an image at some noise level, is told of the level by a number u, and answers. Noisy images are kept
variance preserving, xt = alpha x0 + sigma eps, whatever the framework; s = sigma / alpha is EDM's noise level.

    DDPM   F(xt, u),  u = t;  the answer is eps, x0 or v;  t uniform over 1/T .. 1;  loss | target - F |^2          (1)
    EDM    F(c_in xt / alpha, u),  u = log(s) / 4,  c_in = 1 / sqrt(s^2 + d^2),  d = 0.5                            (2)
           x0^ = c_skip xt / alpha + c_out F,  c_skip = d^2 / (s^2 + d^2),  c_out = s d / sqrt(s^2 + d^2)           (3)
           loss = (s^2 + d^2) / (s d)^2 | x0^ - x0 |^2 = | F - (x0 - c_skip xt / alpha) / c_out |^2                 (4)
           training draws log(s) ~ N(-1.2, 1.2^2), whatever the schedule, which is that of samplers                 (5)
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from soda_jax.diffusion.process import PerExample, Prediction, convert, corrupt_to, target_of
from soda_jax.diffusion.schedules import Schedule, alpha_of
from soda_jax.diffusion.timesteps import draw_times
from soda_jax.types import Image, Keys

SIGMA_DATA = 0.5  # d
LOG_MEAN, LOG_DEVIATION = -1.2, 1.2  # of (5)


class Level(NamedTuple):
    """How much noise, of each example: log-SNR, and what the network is told of it."""

    logsnr: PerExample
    told: PerExample


@runtime_checkable
class Framework(Protocol):
    """What DDPM and EDM have in common; `schedule` says what time t stands for."""

    schedule: Schedule

    def draw(self, keys: Keys) -> Level:
        """Of each example, as training draws it."""
        ...

    def at(self, t: PerExample) -> Level:
        """Of time t in (0, 1]."""
        ...

    def seen(self, xt: Image, level: Level) -> Image:
        """What the network sees of xt."""
        ...

    def clean(self, x0: Image, level: Level) -> Image:
        """The xt of which the network sees the image as if it had this level's noise, which it has not."""
        ...

    def losses(self, answer: Image, x0: Image, eps: Image, level: Level) -> PerExample:
        """Of each example, a mean over its pixels, of what the network answered."""
        ...

    def eps(self, answer: Image, xt: Image, level: Level) -> Image:
        """The noise that the answer speaks of, as samplers want it."""
        ...


@dataclass(frozen=True, kw_only=True)
class DDPM:
    """(1). ValueError for a prediction that is none."""

    schedule: Schedule
    prediction: Prediction = "eps"

    def draw(self, keys: Keys) -> Level:
        """Uniform times."""
        return self.at(draw_times(self.schedule, keys))

    def at(self, t: PerExample) -> Level:
        """The network is told the time itself."""
        return Level(self.schedule.logsnr(t), t)

    def seen(self, xt: Image, level: Level) -> Image:
        """xt as it is."""
        del level
        return xt

    def clean(self, x0: Image, level: Level) -> Image:
        """x0 itself, not alpha x0: as those who feed clean images do (RepFusion, arXiv 2308.10916)."""
        del level
        return x0

    def losses(self, answer: Image, x0: Image, eps: Image, level: Level) -> PerExample:
        """Of (1)."""
        return mean_square(answer - target_of(self.prediction, x0, eps, level.logsnr))

    def eps(self, answer: Image, xt: Image, level: Level) -> Image:
        """The answer, converted."""
        return convert(answer, self.prediction, "eps", xt, level.logsnr)


@dataclass(frozen=True, kw_only=True)
class EDM:
    """(2) to (5)."""

    schedule: Schedule

    def draw(self, keys: Keys) -> Level:
        """(5)"""
        return told(-2 * (LOG_MEAN + LOG_DEVIATION * jax.vmap(jax.random.normal)(keys)))

    def at(self, t: PerExample) -> Level:
        """Of the schedule."""
        return told(self.schedule.logsnr(t))

    def seen(self, xt: Image, level: Level) -> Image:
        """(2)"""
        s = ratio(level)
        return xt / alpha(level) / jnp.sqrt(s**2 + SIGMA_DATA**2)

    def clean(self, x0: Image, level: Level) -> Image:
        """alpha x0, of which c_in x0 is seen."""
        return alpha(level) * x0

    def losses(self, answer: Image, x0: Image, eps: Image, level: Level) -> PerExample:
        """(4)"""
        xt = corrupt_to(level.logsnr, x0, eps)
        kept, scale = self.preconditioned(xt, level)
        return mean_square(answer - (x0 - kept) / scale)

    def eps(self, answer: Image, xt: Image, level: Level) -> Image:
        """From (3)."""
        kept, scale = self.preconditioned(xt, level)
        return convert(kept + scale * answer, "x0", "eps", xt, level.logsnr)

    def preconditioned(self, xt: Image, level: Level) -> tuple[Image, Float[Array, "b 1 1 1"]]:
        """c_skip xt / alpha, and c_out."""
        s = ratio(level)
        total = s**2 + SIGMA_DATA**2
        return SIGMA_DATA**2 / total * xt / alpha(level), s * SIGMA_DATA / jnp.sqrt(total)


def told(logsnr: PerExample) -> Level:
    """EDM's u = log(s) / 4 = -logsnr / 8."""
    return Level(logsnr, -logsnr / 8)


def ratio(level: Level) -> Float[Array, "b 1 1 1"]:
    """s"""
    return jnp.expand_dims(jnp.exp(-level.logsnr / 2), (1, 2, 3))


def alpha(level: Level) -> Float[Array, "b 1 1 1"]:
    """What xt keeps of x0."""
    return jnp.expand_dims(alpha_of(level.logsnr), (1, 2, 3))


def mean_square(error: Image) -> PerExample:
    """Over the pixels of each example."""
    return jnp.mean(jnp.square(error), axis=(1, 2, 3))
