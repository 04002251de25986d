"""From an image back to the noise that a sampler draws it from: DDIM inversion (arXiv 2010.02502, section 4.3).

With eta = 0 and nothing clipped, the sampler's step from t to s < t, (4) of sampler_steps.py, comes from the one x with

    x = F(x),  F(x) = alpha_t (xs - sigma_s eps(x, t)) / alpha_s + sigma_t eps(x, t)                      (1)

    explicit      x_1 = F(xs): what xs itself is taken for, at the later time; wrong by the order of the step    (2)
    fixed point   x_{k+1} = F_k - w (F_k - F_{k-1}),  F_k = F(x_k),  f_k = F_k - x_k,
                  w = <f_k, f_k - f_{k-1}> / |f_k - f_{k-1}|^2 of each image                              (3)

(3) is Anderson's mixing of depth 1 (1965, doi 10.1145/321296.321305), which 2309.04907 brought to inversion. Plain
iteration, w = 0, is slow: across the manifold of images eps' = 1 / sigma_t, so F' = 1 - u_s / u_t, u = sigma / alpha,
which is 1 in the step from s = 0. There (1) has many solutions: a denoiser that knows the image brings any x to it.

At t = 1 alpha is almost 0 and eps(x, 1) almost x itself: (1) would have to be solved to alpha^2, and what rounding
leaves is magnified by 1 / alpha. So inversion ends at the time before, N / (N + 1) in N steps; sampling starts there:

    grid = inner_times(schedule, N)
    noise = invert(denoise, schedule, x0, grid)
    x0 = walk(denoise, schedule, exact(sampler), noise, key, grid)                                       (4)

By DDIM (4) holds but for what (3) leaves; Heun and DPM-Solver++ undo it to within DDIM's own order.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from soda_jax.diffusion.sampler_steps import Denoise, Sampler, update
from soda_jax.diffusion.samplers import OnStep, times
from soda_jax.diffusion.schedules import Schedule
from soda_jax.types import Image

# Network calls a step. More come nearer to the image, but of a network that was trained little from noise that is no
# longer normal, which serves edits badly.
ITERATIONS = 3


def inner_times(schedule: Schedule, steps: int) -> Float[Array, " n"]:
    """The grid of steps + 1 times from steps / (steps + 1) to 0: that of one step more, its first left out.

    Raises ValueError where T leaves no room for that.
    """
    if schedule.steps and steps >= schedule.steps:
        raise ValueError(
            f"inversion: expected at most diffusion.steps - 1 = {schedule.steps - 1} steps, found {steps}"
        )
    return times(schedule, steps + 1)[1:]


def exact(sampler: Sampler) -> Sampler:
    """The same kind (DDIM for DDPM) without fresh noise and clipping, neither of which can be undone."""
    kind = "ddim" if sampler.kind == "ddpm" else sampler.kind
    plain = {"eta": 0.0, "churn": 0.0, "clip_x0": False, "variance": "posterior", "grid": "even"}
    return dataclasses.replace(sampler, kind=kind, **plain)


BACK = Sampler(kind="ddim", clip_x0=False)  # the step of (4) of sampler_steps.py, which goes either way


class Guess(NamedTuple):
    """Of (3): x_k, and F and f of the x before, 0 if none."""

    x: Image
    image: Image
    residual: Image


def invert(
    denoise: Denoise,
    schedule: Schedule,
    x0: Image,
    grid: Float[Array, " n"],
    *,
    iterations: int = ITERATIONS,
    on_step: OnStep | None = None,
    steps: int | Int[Array, ""] | None = None,
) -> Image:
    """x at the first time of the grid, from which `samplers.walk` along the same grid comes to x0, (4).

    Args:
        denoise: as `walk` will be given it, guidance included.
        iterations: network calls a step: 1 is (2), more are (3). Raises ValueError below 1.
        grid, steps: as of `walk`: falling times, of which so many steps count.
        on_step: called on the host after each network call.
    """
    if iterations < 1:
        raise ValueError(f"inversion: expected 1 iteration a step or more, found {iterations}")
    steps = len(grid) - 1 if steps is None else steps

    def body(number: Int[Array, ""], xs: Image) -> Image:
        t, s = grid[steps - 1 - number], grid[steps - number]

        def back(x: Image) -> Image:
            if on_step is not None:
                jax.debug.callback(lambda done: on_step(int(done)), number)
            eps = denoise(x, jnp.full(x.shape[:1], t))
            return update(BACK, xs, eps, None, schedule.logsnr(s), schedule.logsnr(t))  # F of (1)

        nothing = jnp.zeros_like(xs)
        guess = Guess(xs, nothing, nothing)
        return jax.lax.fori_loop(0, iterations, lambda k, guess: mixed(back(guess.x), guess, k), guess).x

    return jax.lax.fori_loop(0, steps, body, x0)


def mixed(image: Image, guess: Guess, k: Int[Array, ""]) -> Guess:
    """(3): the next guess, from F of this one."""
    residual = image - guess.x
    change = residual - guess.residual
    axes = {"axis": (1, 2, 3), "keepdims": True}
    square = jnp.sum(jnp.square(change), **axes)
    known = (k > 0) & (square > 0)
    w = jnp.where(known, jnp.sum(residual * change, **axes) / jnp.where(known, square, 1.0), 0.0)
    return Guess(image - w * (image - guess.image), image, residual)
