"""Adaptive noise levels, off by default: which times t training draws, and what a loss then counts.

    L    = E_{t~U(0,1]} l(t) = E_{t~q} l(t) / q(t)                           (1)  the same for every density q
    q*   = sqrt(E[l(t)^2]) up to a constant                                  (2)  makes the variance of (1) least

q is constant on each of K equal bins of (0, 1], so that t = Q^-1(u), u ~ U(0, 1], Q(t) = the integral of q up to t.
T steps of a schedule take the whole step that t falls into, which keeps (1) exact for any K.

    resampled  q_k = 0.999 sqrt(mean of the last 10 l^2 in bin k) (normalised) + 0.001; 1 till all bins have 10   (3)
    learned    q_k = K softmax(eta)_k,  d eta = - E_{t~q}[ l(t)^2 / q(t)^2  d log q(t) ]                        (4)

(3) is the loss-second-moment resampler of arXiv 2102.09672, over bins in place of single steps. (4) is the gradient of
the second moment of (1), so eta is trained towards (2): the learned schedule of VDM (arXiv 2107.00630), u -> log-SNR of
Q^-1(u), with K knots in place of a network. It falls for every eta and its ends are those of the schedule itself.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import spread
from soda_jax.methods.base import UNAVERAGED, Scalar
from soda_jax.types import Keys, Tree

HISTORY = 10  # losses of (3)
UNIFORM = 0.001  # share of (3)
NAME = "noise_levels"  # of the parameters, and of what is remembered, among the variables

Kind = Literal["resampled", "learned"]
Density = Float[Array, " k"]
Rows = Float[Array, " b"]


class Drawn(NamedTuple):
    """Times, the bins that they fell into, and 1 / q of each."""

    t: Rows
    bin: Int[Array, " b"]
    weight: Rows


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """(3) or (4) with K = bins. ValueError for fewer than 2 bins."""

    kind: Kind
    bins: int = 100

    def __post_init__(self):
        if self.bins < 2:
            raise ValueError(f"diffusion.level_bins must be 2 or more, found {self.bins}")

    def init(self) -> tuple[Tree, Tree]:
        """Parameters, and what is remembered beside BatchNorm's statistics; both begin as the uniform density."""
        if self.kind == "learned":
            return {NAME: {"logits": jnp.zeros(self.bins)}}, {}
        losses, seen = jnp.zeros((self.bins, HISTORY)), jnp.zeros(self.bins, jnp.int32)
        return {}, {UNAVERAGED: {NAME: {"losses": losses, "seen": seen}}}

    def density(self, variables: Tree) -> Density:
        """q of each bin; its mean is 1."""
        if self.kind == "learned":
            return self.bins * jax.nn.softmax(variables["params"][NAME]["logits"])
        memory = variables["batch_stats"][UNAVERAGED][NAME]
        root = jnp.sqrt(jnp.mean(jnp.square(memory["losses"]), axis=1))
        known = (1 - UNIFORM) * root / jnp.maximum(jnp.mean(root), 1e-30) + UNIFORM
        return jnp.where(jnp.all(memory["seen"] >= HISTORY), known, 1.0)

    def draw(self, variables: Tree, schedule: Schedule, keys: Keys, strata: int = 1) -> Drawn:
        """A time of each key; strata: of u, as of `timesteps.spread`."""
        q = jax.lax.stop_gradient(self.density(variables))
        t, number = inverse(q, 1 - spread(keys, strata))
        if schedule.steps:
            t = jnp.clip(jnp.ceil(t * schedule.steps), 1, schedule.steps) / schedule.steps
        return Drawn(t, number, 1 / q[number])

    def learn(self, variables: Tree, drawn: Drawn, losses: Rows) -> tuple[Scalar, Tree]:
        """A term of the loss that is 0 and has the gradient (4) (of (3): none), and what is remembered from now on."""
        losses = jax.lax.stop_gradient(losses)
        if self.kind == "resampled":
            memory = variables["batch_stats"][UNAVERAGED]
            return jnp.zeros(()), {UNAVERAGED: {**memory, NAME: remembered(memory[NAME], drawn.bin, losses)}}
        square = jnp.square(losses * drawn.weight)
        share = square / jnp.maximum(jnp.mean(square), 1e-30)  # a gradient of the same size whatever the loss
        term = -jnp.mean(share * jnp.log(self.density(variables)[drawn.bin]))
        return term - jax.lax.stop_gradient(term), {}


def inverse(q: Density, u: Rows) -> tuple[Rows, Int[Array, " b"]]:
    """Q^-1(u) of u in (0, 1], and the bin that it lies in."""
    knots = jnp.concatenate([jnp.zeros(1), jnp.cumsum(q)])
    knots /= knots[-1]  # so that u = 1 is t = 1, whatever the sum was rounded to
    number = jnp.clip(jnp.searchsorted(knots, u) - 1, 0, len(q) - 1)
    within = (u - knots[number]) / (knots[number + 1] - knots[number])
    return (number + within) / len(q), number


def remembered(memory: Tree, number: Int[Array, " b"], losses: Rows) -> Tree:
    """The last HISTORY losses of each bin, those of this batch included, in the order of its examples."""
    bins, kept = memory["losses"].shape
    hit = (number[:, None] == jnp.arange(bins)[None]).astype(jnp.int32)
    earlier, total = jnp.cumsum(hit, axis=0) - hit, jnp.sum(hit, axis=0)
    rank = jnp.take_along_axis(earlier, number[:, None], axis=1)[:, 0]
    place = (memory["seen"][number] + rank) % kept
    place = jnp.where(
        rank >= total[number] - kept, place, kept
    )  # out of range: overwritten within this batch
    new = memory["losses"].at[number, place].set(losses, mode="drop")
    seen = memory["seen"] + total
    return {"losses": new, "seen": jnp.where(seen < kept, seen, kept + seen % kept)}  # never overflows
