"""From noise to images, along a grid of times from 1 to 0, by the steps of sampler_steps.py, on any schedule.

even   t = 1, 1 - 1 / steps, ..., 0
ddae   DDIM at t = ..., (1 + 2 T / steps) / T, (1 + T / steps) / T, 1 / T, 0, on (9) of schedules.py, as the authors
       of DDAE (arXiv 2303.09769) have it: its 0 is not clean, and what is left there, a hundredth of eps at
       T = 1000, is not taken away
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from soda_jax.diffusion.process import PerExample
from soda_jax.diffusion.sampler_steps import Denoise, Sampler, State, Step, heun_step, multistep, one_step
from soda_jax.diffusion.schedules import Schedule
from soda_jax.types import Image

OnStep = Callable[[int], None]


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


def path(schedule: Schedule, sampler: Sampler) -> tuple[Schedule, Float[Array, " n"]]:
    """The schedule and the times that a sampler walks along. ValueError, as of `times`, for steps that do not fit."""
    if sampler.grid == "even":
        return schedule, times(schedule, sampler.steps)
    stray = dataclasses.replace(schedule, stray=True)
    if schedule.steps % sampler.steps:
        expected = f"a divisor of diffusion.steps = {schedule.steps} with samples.grid='ddae'"
        raise ValueError(f"samples.steps: expected {expected}, found {sampler.steps}")
    met = np.arange(1, schedule.steps, schedule.steps // sampler.steps)[::-1]
    return stray, jnp.asarray(np.append(met, 0) / schedule.steps, jnp.float32)


def guided(eps_with: Image, eps_without: Image, weight: float | PerExample, rescale: float = 0.0) -> Image:
    """Classifier-free guidance (arXiv 2207.12598), then its deviation moved towards that of `eps_with` (2305.08891):

        eps = (1 + w) eps_with - w eps_without,    eps (1 - rescale + rescale std(eps_with) / std(eps))

    weight: w, of all or of each example; 0 is none, -1 the unconditional prediction. rescale: 0, none, to 1.
    """
    weight = jnp.expand_dims(weight, (1, 2, 3)) if jnp.ndim(weight) else weight
    eps = (1 + weight) * eps_with - weight * eps_without
    if not rescale:
        return eps
    deviations = (x.std((1, 2, 3), keepdims=True) for x in (eps_with, eps))
    return eps * (1 - rescale + rescale * next(deviations) / jnp.maximum(next(deviations), 1e-8))


def sample(
    denoise: Denoise,
    schedule: Schedule,
    sampler: Sampler,
    noise: Image,
    key: Key[Array, ""],
    on_step: OnStep | None = None,
) -> Image:
    """Images from noise, in one loop; works inside jit, and over a batch that is sharded over devices.

    Args:
        denoise: (xt, t [b]) -> eps, already guided.
        noise: standard normal, of the shape of the images: x at t = 1.
        key: for fresh noise; step i draws from fold_in(key, i), whatever the devices.
        on_step: called on the host with the step's number, 0 to steps - 1, as steps are made (in any order).

    Returns x0, within [-1, 1] where the sampler clips (but for what the grid "ddae" leaves). Raises as `path`.
    """
    schedule, grid = path(schedule, sampler)
    return walk(denoise, schedule, sampler, noise, key, grid, on_step)


def walk(
    denoise: Denoise,
    schedule: Schedule,
    sampler: Sampler,
    xt: Image,
    key: Key[Array, ""],
    grid: Float[Array, " n"],
    on_step: OnStep | None = None,
    steps: int | Int[Array, ""] | None = None,
) -> Image:
    """`sample` along any falling grid of times: xt at the first of them becomes x at the last.

    steps: how many of the grid's are walked (default: all), traced perhaps, so that one program serves many grids.
    """
    advance = {"heun": heun_step, "dpm++2m": multistep}.get(sampler.kind, one_step)

    def body(index: Int[Array, ""], state: State) -> State:
        if on_step is not None:
            jax.debug.callback(lambda done: on_step(int(done)), index)
        step = Step(index, grid[index], grid[index + 1], jax.random.fold_in(key, index))
        return advance(denoise, schedule, sampler, state, step)

    state = State(xt, jnp.zeros_like(xt), jnp.zeros(()))
    return jax.lax.fori_loop(0, len(grid) - 1 if steps is None else steps, body, state).xt
