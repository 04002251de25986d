"""What samplers there are, and one step of each: DDPM (arXiv 2006.11239), DDIM(eta) (2010.02502), Heun with churn
(2206.00364) and DPM-Solver++(2M) (2211.01095), on any schedule. The walk: samplers.py.

From time t to s < t, given the denoiser's eps, and fresh noise n ~ N(0, I):

    x0  = (xt - sigma_t eps) / alpha_t, clipped to [-1, 1] if so wished                                 (1)
    eps = (xt - alpha_t x0) / sigma_t, again, where x0 was clipped                                      (2)
    r   = SNR(t) / SNR(s) = exp(logsnr_t - logsnr_s), in [0, 1]                                         (3)
    xs  = alpha_s x0 + sigma_s (sqrt(1 - eta^2 + eta^2 r) eps + eta sqrt(1 - r) n)                      (4)

sigma_s^2 (1 - r) is the variance of q(xs | xt, x0), so eta = 1 is DDPM's ancestral step, also when steps are
skipped, and eta = 0 draws nothing. Both are of first order; the others are of second:

    Heun   u = sigma / alpha,  xs / alpha_s = xt / alpha_t + (u_s - u_t) (eps(xt, t) + eps(xs', s)) / 2,  xs' by (4) (5)
           first, with churn: up to u = u_t (1 + gamma) by noise of deviation S_noise sqrt(u^2 - u_t^2),
           gamma = min(S_churn / steps, sqrt 2 - 1) where u_t lies in the range, else 0                   (6)
    2M     xs = sigma_s / sigma_t xt + alpha_s (1 - e^-h) ((1 + c) x0(t) - c x0(the step before)),
           h = (logsnr_s - logsnr_t) / 2,  c = h / (2 h of the step before)                               (7)

The authors of DDAE (2303.09769) have another DDPM:

    variance beta   with eta = 1 the last term of (4) is sqrt(1 - alpha_t^2 / alpha_s^2) n, and 0 in the step to 0 (8)

Heun's correction is left out where u is (nearly) without bounds: in the step from t = 1 (not on the schedule edm, where
u is 80 there), and, as the others do, in the one to 0; 2M takes c = 0 in the first and the last. What is left then is
(4) with eta = 0.
"""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from soda_jax.diffusion.process import PerExample, convert
from soda_jax.diffusion.schedules import LOGSNR_MAX, Schedule, alpha_of, sigma_of
from soda_jax.types import Image

Kind = Literal["ddpm", "ddim", "heun", "dpm++2m"]
Denoise = Callable[[Image, PerExample], Image]  # (xt, t) -> eps, already guided
Number = Float[Array, ""]
LARGEST_GAMMA = math.sqrt(2) - 1  # of (6)
# usual, other, for which kind
OPTIONS = {"variance": ("posterior", "beta", "ddpm"), "grid": ("even", "ddae", "ddim")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to walk from noise to an image.

    `steps` of the walk, one network call each (Heun: two, but for the first and the last); `eta` in [0, 1] is how
    much fresh noise DDIM draws (DDPM: always 1); `churn`, `churn_noise` and `churn_range` are S_churn, S_noise and the
    range of u in (6), for Heun; `clip_x0` keeps each estimate of the image within [-1, 1]; `variance` is "posterior"
    or, for DDPM, "beta"; `grid` "even" or, for DDIM, "ddae". Raises ValueError outside these.
    """

    kind: str = "ddim"  # a Kind; checked below, where the error can say which config key to change
    steps: int = 50
    eta: float = 0.0
    churn: float = 0.0
    churn_noise: float = 1.0
    churn_range: tuple[float, float] = (0.0, math.inf)
    clip_x0: bool = True
    variance: str = "posterior"
    grid: str = "even"

    def __post_init__(self):
        if self.kind not in typing.get_args(Kind):
            raise ValueError(f"samples.sampler: expected one of {typing.get_args(Kind)}, found {self.kind!r}")
        if self.steps < 1:
            raise ValueError(f"samples.steps: expected 1 or more, found {self.steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"samples.eta: expected 0 to 1, found {self.eta}")
        if self.churn and self.kind != "heun":
            raise ValueError(f"samples.churn={self.churn} is for samples.sampler='heun', found {self.kind!r}")
        if not (self.churn >= 0 and self.churn_noise > 0 and 0 <= self.churn_range[0] < self.churn_range[1]):
            raise ValueError(
                "samples.churn must be 0 or more, churn_noise above 0 and churn_range (low, high) with 0 <= low < high"
                f", found {self.churn}, {self.churn_noise}, {self.churn_range}"
            )
        for key, (usual, other, kind) in OPTIONS.items():
            if (found := getattr(self, key)) != usual and (found, self.kind) != (other, kind):
                expected = f"expected {usual!r}, or {other!r} with samples.sampler={kind!r}"
                raise ValueError(f"samples.{key}: {expected}, found {found!r} with {self.kind!r}")

    @property
    def noise_share(self) -> float:
        """The eta of (4)."""
        return {"ddpm": 1.0, "ddim": self.eta}.get(self.kind, 0.0)

    def calls(self, schedule: Schedule) -> int:
        """How often the network is called."""
        corrected = max(self.steps - (1 if schedule.keeps_some else 2), 0)
        return self.steps + (corrected if self.kind == "heun" else 0)


class State(NamedTuple):
    """What a step takes and leaves: xt, and of the step before its estimate x0 and its h of (7), 0 if none."""

    xt: Image
    x0: Image
    h: Number


class Step(NamedTuple):
    """One step of a walk: its number, from time t to time s, and its key."""

    index: Int[Array, ""]
    t: Number
    s: Number
    key: Key[Array, ""]


def one_step(denoise: Denoise, schedule: Schedule, sampler: Sampler, state: State, step: Step) -> State:
    """DDPM and DDIM: (1) to (4)."""
    eps = denoise(state.xt, jnp.full(state.xt.shape[:1], step.t))
    fresh = _fresh_noise(sampler, step.key, state.xt)
    logsnrs = schedule.logsnr(step.t), schedule.logsnr(step.s)
    return state._replace(xt=update(sampler, state.xt, eps, fresh, *logsnrs))


def heun_step(denoise: Denoise, schedule: Schedule, sampler: Sampler, state: State, step: Step) -> State:
    """(5), after (6)."""
    xt, t = churned(schedule, sampler, state.xt, step) if sampler.churn else (state.xt, step.t)
    logsnr_t, logsnr_s = schedule.logsnr(t), schedule.logsnr(step.s)
    _, eps = _estimates(sampler, xt, denoise(xt, jnp.full(xt.shape[:1], t)), logsnr_t)
    xs = update(sampler, xt, eps, None, logsnr_t, logsnr_s)

    def corrected(xs: Image) -> Image:
        _, after = _estimates(sampler, xs, denoise(xs, jnp.full(xs.shape[:1], step.s)), logsnr_s)
        change = jnp.exp(-logsnr_s / 2) - jnp.exp(-logsnr_t / 2)
        return alpha_of(logsnr_s) * (xt / alpha_of(logsnr_t) + change * (eps + after) / 2)

    bounded = ((step.t < 1) | schedule.keeps_some) & (step.s > 0)
    return state._replace(xt=jax.lax.cond(bounded, corrected, lambda xs: xs, xs))


def churned(schedule: Schedule, sampler: Sampler, xt: Image, step: Step) -> tuple[Image, Number]:
    """(6): xt with more noise, and its time. On a schedule of T steps up to the next of its times."""
    u = jnp.exp(-schedule.logsnr(step.t) / 2)
    low, high = sampler.churn_range
    gamma = jnp.where((u >= low) & (u <= high), min(sampler.churn / sampler.steps, LARGEST_GAMMA), 0.0)
    t = jnp.where((gamma > 0) & (step.t < 1), schedule.time_of(-2 * jnp.log(u * (1 + gamma))), step.t)
    more = jnp.maximum(jnp.exp(-schedule.logsnr(t)) - jnp.exp(-schedule.logsnr(step.t)), 0.0)
    fresh = sampler.churn_noise * jnp.sqrt(more) * jax.random.normal(step.key, xt.shape, xt.dtype)
    return schedule.alpha(t) * (xt / schedule.alpha(step.t) + fresh), t


def multistep(denoise: Denoise, schedule: Schedule, sampler: Sampler, state: State, step: Step) -> State:
    """(7)"""
    xt = state.xt
    logsnr_t, logsnr_s = schedule.logsnr(step.t), schedule.logsnr(step.s)
    x0, _ = _estimates(sampler, xt, denoise(xt, jnp.full(xt.shape[:1], step.t)), logsnr_t)
    h = (logsnr_s - logsnr_t) / 2
    alone = (step.index == 0) | (step.s <= 0)
    c = jnp.where(alone, 0.0, h / (2 * jnp.where(alone, 1.0, state.h)))
    estimate = (1 + c) * x0 - c * state.x0
    xs = sigma_of(logsnr_s) / sigma_of(logsnr_t) * xt - alpha_of(logsnr_s) * jnp.expm1(-h) * estimate
    return State(xs, x0, h)


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
    if fresh is not None and sampler.variance == "posterior":
        direction += eta * jnp.sqrt(-jnp.expm1(change)) * fresh
    xs = alpha_of(logsnr_s) * x0 + sigma_of(logsnr_s) * direction
    return xs + beta_deviation(logsnr_t, logsnr_s) * fresh if sampler.variance == "beta" else xs


def beta_deviation(logsnr_t: Float[Array, ""], logsnr_s: Float[Array, ""]) -> Float[Array, ""]:
    """Of the fresh noise of (8)."""
    log_ratio = jax.nn.log_sigmoid(logsnr_t) - jax.nn.log_sigmoid(logsnr_s)
    return jnp.where(logsnr_s < LOGSNR_MAX, jnp.sqrt(-jnp.expm1(log_ratio)), 0.0)


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
