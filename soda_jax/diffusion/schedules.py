"""Noise schedules: how much of the image is left at time t.

Variance preserving: `xt = alpha x0 + sigma eps`, with `abar = alpha^2`, `sigma^2 = 1 - abar`, t in [0, 1].

    inverted   abar(t) = (2 (1 + s) / pi) arccos(sqrt(t)) - s                                           (1)
    cosine     abar(t) = cos^2(u(t)) / cos^2(u(0)),  u(t) = (pi / 2) (t + s) / (1 + s),  s = 0.008      (2)
    linear     abar(t) = exp(-(b0 t + (b1 - b0) t^2 / 2)),  b0 = 0.1, b1 = 20                           (3)
    log-SNR    logsnr(t) = log(abar / (1 - abar))                                                       (4)
    back       alpha^2 = sigmoid(logsnr),  sigma^2 = sigmoid(-logsnr)                                   (5)
    T steps    beta_k = min(1 - abar(k/T) / abar((k-1)/T), 0.999),  abar_k = prod_{j<=k} (1 - beta_j)   (6)
    constant   abar(t) = exp(-b t),  b = 8; in T steps beta_k = b / T                                   (7)
    edm        sigma / alpha = (m + r (M - m))^7,  m = 0.002^(1/7), M = 80^(1/7),  r = t, 0 at t = 0;
               in T steps r = (k - 1) / (T - 1)                                                         (8)
    stray      beta_0 .. beta_T evenly from b0 / T to b1 / T,  abar_k = prod_{0<=j<=k} (1 - beta_j)     (9)

(1) is SODA's (arXiv 2311.17901; the exact formula is assumed, spec 1.10), (2) is arXiv 2102.09672, (3) is
arXiv 2011.13456, whose T-step form, beta from 0.1/T to 20/T, is arXiv 2006.11239. (7) is for latents (2111.15640).
(8) is arXiv 2206.00364: its T = 18 levels and a clean one; unlike the others it never drowns the image in noise.
(9) is what DDAE's authors (2303.09769) give their DDIM sampler, of nets that were trained on `linear`: one more beta
than steps and no clean time, so that images are a little noisier than the net is told.
(1) falls below 0 for t > 0.99984 and (2) reaches 0 at t = 1: (6) bounds both, and log-SNR is clamped.
"""

import dataclasses
import functools
import typing
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.types import Time

Name = Literal["inverted", "cosine", "linear", "constant", "edm"]

OFFSET = 0.008  # s of (1) and (2)
BETA_FIRST, BETA_LAST = 0.1, 20.0  # b0 and b1 of (3)
BETA_LIMIT = 0.999  # of (6)
BETA_CONSTANT = 8.0  # b of (7): 0.008 in each of 1000 steps
RHO = 7  # the exponent of (8)
ROOTS = 0.002 ** (1 / RHO), 80.0 ** (1 / RHO)  # m and M of (8)
LOGSNR_MIN = -20.0  # floor: eps -> x0 divides by alpha, and 1/alpha is 22026 there
LOGSNR_MAX = 40.0  # stands for t = 0: alpha is 1 in float32 and sigma is 2e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """A noise schedule. `steps` is T; 0 means continuous time.

    In T steps, t is read as the index round(t T) of 0..T. `stray`: (9) in place of (6), for sampling alone. Raises
    ValueError for an unknown name, a negative T, and (9) of another schedule than linear in T steps.
    """

    name: str = "inverted"  # a Name; checked below, where the error can say which config key to change
    steps: int = 1000
    stray: bool = False

    def __post_init__(self):
        if self.name not in typing.get_args(Name):
            raise ValueError(
                f"diffusion.schedule: expected one of {typing.get_args(Name)}, found {self.name!r}"
            )
        if self.steps < 0:
            raise ValueError(f"diffusion.steps: expected 0 (continuous) or more, found {self.steps}")
        if self.stray and (self.name != "linear" or not self.steps):
            raise ValueError(
                "samples.grid='ddae' is for diffusion.schedule='linear' with diffusion.steps above 0, found "
                f"{self.name!r} with {self.steps}"
            )

    @property
    def keeps_some(self) -> bool:
        """Whether there is something left of the image at t = 1, by which a sampler may divide."""
        return self.name == "edm"

    def logsnr(self, t: Time) -> Time:
        """Log signal-to-noise ratio (4) at t, float32, falling in t, within [LOGSNR_MIN, LOGSNR_MAX]."""
        if not self.steps:
            return _CONTINUOUS[self.name](t)
        index = jnp.round(t * self.steps).astype(jnp.int32)
        return jnp.asarray(self.table)[index]

    @property
    def table(self) -> np.ndarray:
        """log-SNR at k/T, float32 [T + 1]."""
        return stray_table(self.steps) if self.stray else logsnr_table(self.name, self.steps)

    def time_of(self, logsnr: Time) -> Time:
        """The time at which log-SNR has come down to this: to 1e-7, or in T steps the first such k/T; 1 at most."""
        if self.steps:
            table = jnp.asarray(self.table)
            above = jnp.sum(jnp.expand_dims(table, tuple(range(logsnr.ndim))) > logsnr[..., None], axis=-1)
            return jnp.minimum(above, self.steps) / jnp.float32(self.steps)

        def halved(_, bounds: tuple[Time, Time]) -> tuple[Time, Time]:
            low, high = bounds
            middle = (low + high) / 2
            clean = self.logsnr(middle) > logsnr
            return jnp.where(clean, middle, low), jnp.where(clean, high, middle)

        ends = jnp.zeros(logsnr.shape), jnp.ones(logsnr.shape)
        return jax.lax.fori_loop(0, 24, halved, ends)[1]

    def alpha(self, t: Time) -> Time:
        """What xt keeps of x0, from 1 at t = 0 down to almost 0 at t = 1."""
        return alpha_of(self.logsnr(t))

    def sigma(self, t: Time) -> Time:
        """The standard deviation of the noise in xt."""
        return sigma_of(self.logsnr(t))


def alpha_of(logsnr: Time) -> Time:
    """alpha from log-SNR, (5)."""
    return jnp.sqrt(jax.nn.sigmoid(logsnr))


def sigma_of(logsnr: Time) -> Time:
    """sigma from log-SNR, (5); accurate where 1 - alpha^2 would round to 0."""
    return jnp.sqrt(jax.nn.sigmoid(-logsnr))


def betas(name: str, steps: int) -> np.ndarray:
    """beta_1..beta_T of (6), float64 [T]; those of (8) are not bounded."""
    if name == "linear":
        raw = np.linspace(BETA_FIRST, BETA_LAST, steps) / steps
    elif name == "constant":
        raw = np.full(steps, BETA_CONSTANT / steps)
    elif name == "edm":
        ratios = np.linspace(*ROOTS[::-1], steps)[::-1] ** RHO  # reversed: a single level is the last
        abar = np.concatenate([[1.0], 1 / (1 + ratios**2)])
        return 1 - abar[1:] / abar[:-1]
    else:
        abar = _ABAR[name](np.linspace(0.0, 1.0, steps + 1))
        raw = 1 - abar[1:] / abar[:-1]
    return np.minimum(raw, BETA_LIMIT)


@functools.lru_cache
def logsnr_table(name: str, steps: int) -> np.ndarray:
    """log-SNR at k/T for k = 0..T, float32 [T + 1], computed in float64."""
    log_abar = np.cumsum(np.log1p(-betas(name, steps)))
    logsnr = log_abar - np.log(-np.expm1(log_abar))
    return np.concatenate([[LOGSNR_MAX], np.maximum(logsnr, LOGSNR_MIN)]).astype(np.float32)


@functools.lru_cache
def stray_table(steps: int) -> np.ndarray:
    """log-SNR of (9) at k/T for k = 0..T, float32 [T + 1], computed in float64."""
    log_abar = np.cumsum(np.log1p(-np.linspace(BETA_FIRST, BETA_LAST, steps + 1) / steps))
    return (log_abar - np.log(-np.expm1(log_abar))).astype(np.float32)


def _abar_inverted(t: np.ndarray) -> np.ndarray:
    """(1)"""
    return 2 * (1 + OFFSET) / np.pi * np.arccos(np.sqrt(t)) - OFFSET


def _abar_cosine(t: np.ndarray) -> np.ndarray:
    """(2), up to its constant, which the ratios of (6) cancel."""
    return np.cos(np.pi / 2 * (t + OFFSET) / (1 + OFFSET)) ** 2


def _clamped(logsnr: Time) -> Time:
    return jnp.clip(logsnr, LOGSNR_MIN, LOGSNR_MAX).astype(jnp.float32)


def _logsnr_inverted(t: Time) -> Time:
    """(1) in (4); 1 - abar is written with arcsin, so that small t do not cancel."""
    scale = 2 * (1 + OFFSET) / np.pi
    signal = jnp.maximum(scale * jnp.arccos(jnp.sqrt(t)) - OFFSET, 0.0)
    return _clamped(jnp.log(signal) - jnp.log(scale * jnp.arcsin(jnp.sqrt(t))))


def _logsnr_cosine(t: Time) -> Time:
    """(2) in (4); 1 - abar = sin(u - u0) sin(u + u0) / cos^2(u0) and cos(u) = sin(pi/2 - u) do not cancel."""
    quarter = np.pi / 2 / (1 + OFFSET)
    signal = 2 * jnp.log(jnp.sin(quarter * (1 - t)))
    return _clamped(signal - jnp.log(jnp.sin(quarter * t)) - jnp.log(jnp.sin(quarter * (t + 2 * OFFSET))))


def _logsnr_linear(t: Time) -> Time:
    """(3) in (4)."""
    return _clamped(-jnp.log(jnp.expm1(BETA_FIRST * t + (BETA_LAST - BETA_FIRST) / 2 * t**2)))


def _logsnr_constant(t: Time) -> Time:
    """(7) in (4)."""
    return _clamped(-jnp.log(jnp.expm1(BETA_CONSTANT * t)))


def _logsnr_edm(t: Time) -> Time:
    """(8) in (4)."""
    low, high = ROOTS
    return jnp.where(t > 0, _clamped(-2 * RHO * jnp.log(low + t * (high - low))), LOGSNR_MAX)


_ABAR = {"inverted": _abar_inverted, "cosine": _abar_cosine}
_CONTINUOUS = {"inverted": _logsnr_inverted, "cosine": _logsnr_cosine, "linear": _logsnr_linear}
_CONTINUOUS |= {"constant": _logsnr_constant, "edm": _logsnr_edm}
