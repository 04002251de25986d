"""From noise to images: DDIM(eta) (arXiv 2010.02502) and ancestral DDPM (arXiv 2006.11239) in one update.

From time t to s < t, given the denoiser's eps, and fresh noise n ~ N(0, I):

    x0  = (xt - sigma_t eps) / alpha_t, clipped to [-1, 1] if so wished                                 (1)
    eps = (xt - alpha_t x0) / sigma_t, again, where x0 was clipped                                      (2)
    r   = SNR(t) / SNR(s) = exp(logsnr_t - logsnr_s), in [0, 1]                                         (3)
    xs  = alpha_s x0 + sigma_s (sqrt(1 - eta^2 + eta^2 r) eps + eta sqrt(1 - r) n)                      (4)

sigma_s^2 (1 - r) is the variance of q(xs | xt, x0), so eta = 1 is DDPM's ancestral step, also when steps are
skipped, and eta = 0 draws nothing. Classifier-free guidance with weight w (arXiv 2207.12598):

    eps = (1 + w) eps_with - w eps_without                                                              (5)
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from soda_jax.diffusion.process import PerExample, convert
from soda_jax.diffusion.schedules import Schedule, alpha_of, sigma_of
from soda_jax.types import Image

Kind = Literal["ddpm", "ddim"]
Denoise = Callable[[Image, PerExample], Image]  # (xt, t) -> eps, already guided
OnStep = Callable[[int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to walk from noise to an image.

    `steps` network calls; `eta` in [0, 1] is how much fresh noise DDIM draws (DDPM: always 1); `clip_x0`
    keeps each estimate of the image within [-1, 1]. Raises ValueError outside these.
    """

    kind: str = "ddim"  # a Kind; checked below, where the error can say which config key to change
    steps: int = 50
    eta: float = 0.0
    clip_x0: bool = True

    def __post_init__(self):
        if self.kind not in typing.get_args(Kind):
            raise ValueError(f"samples.sampler: expected one of {typing.get_args(Kind)}, found {self.kind!r}")
        if self.steps < 1:
            raise ValueError(f"samples.steps: expected 1 or more, found {self.steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"samples.eta: expected 0 to 1, found {self.eta}")

    @property
    def noise_share(self) -> float:
        """The eta of (4)."""
        return 1.0 if self.kind == "ddpm" else self.eta


def times(schedule: Schedule, steps: int) -> Float[Array, " n"]:
    """The grid of steps + 1 times, from exactly 1 down to exactly 0, evenly spaced (to whole k/T in T steps).

    t = 1 has to be there: the inverted schedule jumps at its last step, so pure noise stands for t = 1 alone.
    Raises ValueError where there are more steps than T.
    """
    grid = np.linspace(1.0, 0.0, steps + 1)
    if schedule.steps:
        if steps > schedule.steps:
            raise ValueError(
                f"samples.steps: expected at most diffusion.steps = {schedule.steps}, found {steps}; "
                "lower the one or raise the other"
            )
        grid = np.round(grid * schedule.steps) / schedule.steps
    return jnp.asarray(grid, jnp.float32)


def guided(eps_with: Image, eps_without: Image, weight: float) -> Image:
    """Classifier-free guidance (5); weight 0 is none, -1 is the unconditional prediction."""
    return (1 + weight) * eps_with - weight * eps_without


def sample(
    denoise: Denoise,
    schedule: Schedule,
    sampler: Sampler,
    noise: Image,
    key: Key[Array, ""],
    on_step: OnStep | None = None,
) -> Image:
    """Images from noise, in one `lax.scan`; works inside jit, and over a batch that is sharded over devices.

    Args:
        denoise: (xt, t [b]) -> eps, already guided.
        noise: standard normal, of the shape of the images: x at t = 1.
        key: for the fresh noise of (4); step i draws from fold_in(key, i), whatever the devices.
        on_step: called on the host with the step's number, 0 to steps - 1, as steps are made (in any order).

    Returns x0, within [-1, 1] where the sampler clips.
    """
    grid = times(schedule, sampler.steps)

    def body(xt: Image, step):
        index, t, s = step
        eps = denoise(xt, jnp.full(xt.shape[:1], t))
        fresh = _fresh_noise(sampler, jax.random.fold_in(key, index), xt)
        if on_step is not None:
            jax.debug.callback(lambda done: on_step(int(done)), index)
        return update(sampler, xt, eps, fresh, schedule.logsnr(t), schedule.logsnr(s)), None

    return jax.lax.scan(body, noise, (jnp.arange(sampler.steps), grid[:-1], grid[1:]))[0]


def update(
    sampler: Sampler,
    xt: Image,
    eps: Image,
    fresh: Image | None,
    logsnr_t: Float[Array, ""],
    logsnr_s: Float[Array, ""],
) -> Image:
    """One step (1) to (4) from t to s; `fresh` is standard normal, or None where none is drawn."""
    x0, eps = _estimates(sampler, xt, eps, logsnr_t)
    change = logsnr_t - logsnr_s  # log r of (3)
    eta = sampler.noise_share
    direction = jnp.sqrt(1 - eta**2 + eta**2 * jnp.exp(change)) * eps
    if fresh is not None:
        direction += eta * jnp.sqrt(-jnp.expm1(change)) * fresh
    return alpha_of(logsnr_s) * x0 + sigma_of(logsnr_s) * direction


def _fresh_noise(sampler: Sampler, key: Key[Array, ""], like: Image) -> Image | None:
    return jax.random.normal(key, like.shape, like.dtype) if sampler.noise_share else None


def _estimates(sampler: Sampler, xt: Image, eps: Image, logsnr: Float[Array, ""]) -> tuple[Image, Image]:
    """x0 and the eps that belongs to it, (1) and (2)."""
    logsnr = jnp.full(xt.shape[:1], logsnr)
    x0 = convert(eps, "eps", "x0", xt, logsnr)
    if not sampler.clip_x0:
        return x0, eps
    x0 = jnp.clip(x0, -1, 1)
    return x0, convert(x0, "x0", "eps", xt, logsnr)
