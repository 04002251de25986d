"""What SODA is compared with, without a denoiser: two views of an image must have like codes, and images unlike ones.

    z, z'  = E(source), E(target scaled to the source's size), in one pass;  p, p' = f(z), f(z')             (1)
    SimCLR (arXiv 2002.05709), u = p / |p|, over all 2 b views of the batch:
        L  = mean_i [ log sum_{k != i} exp(u_i u_k / T) - u_i u_j / T ],  j the other view of i's image       (2)
    VICReg (2105.04906)
        L  = 25 mean (p - p')^2 + 25 (V(p) + V(p')) / 2 + C(p) + C(p')   consistency.py                      (3)
    BYOL (2006.07733), q a predictor, bars: normalised; m: the networks averaged over steps, which get no gradient
        L  = |q(p)- - m(x')-|^2 + |q(p')- - m(x)-|^2                                                         (4)
        m <- a m + (1 - a) (E, f) after every step,  a = 1 - (1 - a0) (1 + cos(pi k / K)) / 2                (5)

f and q are perceptrons with BatchNorm, over the whole batch, as in the papers. z and the pooled features are what is
probed. All of it is symmetric in the two views, but for SODA's source noise, which is not added here.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from soda_jax.methods.base import UNAVERAGED, BatchSpec, Scalar, encoder_variables, to_float
from soda_jax.methods.consistency import clean_target, vicreg
from soda_jax.methods.reading import Reading
from soda_jax.types import Batch, Keys, Tree

Codes = Float[Array, "_ _"]  # one of each view
Views = Float[Array, "b 2 n"]  # codes of both views


class Perceptron(nn.Module):
    """Linear layers of these widths; BatchNorm and ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b _"], train: bool) -> Float[Array, "b _"]:
        *hidden, last = self.widths
        for number, width in enumerate(hidden):
            x = nn.Dense(width, use_bias=False, name=f"layer_{number}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm_{number}")(x))
        return nn.Dense(last, name="last")(x)


@dataclass(frozen=True, kw_only=True)
class Siamese(Reading):
    """The encoder, and the projector f that only training sees. ValueError for widths that are none.

    projector: widths of f.
    """

    projector: tuple[int, ...] = (512, 128)

    def __post_init__(self):
        super().__post_init__()
        if not self.projector or min(self.projector) < 1:
            raise ValueError(f"siamese.projector must hold widths of 1 or more, found {self.projector}")

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables."""
        keys = jax.random.split(key)
        image = jnp.zeros((1, *spec["source"].shape[1:]))
        made = {
            "encoder": self.encoder.init(keys[0], image, train=False),
            "projector": self.head.init(keys[1], jnp.zeros((1, self.encoder.latent_dim)), train=False),
        }
        return by_collection(made)

    @property
    def head(self) -> nn.Module:
        """f"""
        return Perceptron(self.projector)

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """Of both views; the statistics follow them."""
        del keys  # nothing is drawn
        z, p, stats = self.project(variables, batch, train)
        found, more = self.compared(variables, p, batch, train)
        metrics = {"z_square": jnp.mean(jnp.square(z)), "spread": spread(p)}
        return found, {"metrics": metrics, "batch_stats": {**variables["batch_stats"], **stats, **more}}

    def project(self, variables: Tree, batch: Batch, train: bool) -> tuple[Codes, Views, Tree]:
        """(1): z of all views, p by view, and the statistics after this batch."""
        views = jnp.stack([to_float(batch["source"]), clean_target(batch)], 1)
        images = views.reshape(-1, *views.shape[2:])
        (z, _), encoder = applied(self.encoder, encoder_variables(variables), images, train)
        p, projector = applied(self.head, part(variables, "projector"), z, train)
        stats = {"encoder": encoder, "projector": projector} if train else {}
        return z, p.reshape(-1, 2, p.shape[-1]), {name: tree for name, tree in stats.items() if tree}

    def compared(self, variables: Tree, p: Views, batch: Batch, train: bool) -> tuple[Scalar, Tree]:
        """The loss of the projected views, and the statistics of further networks."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SimCLR(Siamese):
    """(2). temperature: T, more than 0 (ValueError)."""

    temperature: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"siamese.temperature must be more than 0, found {self.temperature}")

    def compared(self, variables: Tree, p: Views, batch: Batch, train: bool) -> tuple[Scalar, Tree]:
        """(2)"""
        del variables, batch, train
        return nt_xent(p, self.temperature), {}


@dataclass(frozen=True, kw_only=True)
class VICReg(Siamese):
    """(3)"""

    def compared(self, variables: Tree, p: Views, batch: Batch, train: bool) -> tuple[Scalar, Tree]:
        """(3)"""
        del variables, batch, train
        return vicreg(p[:, 0], p[:, 1]), {}


@dataclass(frozen=True, kw_only=True)
class BYOL(Siamese):
    """(4) and (5). momentum: a0, in [0, 1); total_steps: K. ValueError outside of these."""

    predictor: tuple[int, ...] = (512, 128)
    momentum: float = 0.99
    total_steps: int

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"siamese.momentum must be 0 or more and below 1, found {self.momentum}")
        if self.projector[-1] != self.predictor[-1]:
            raise ValueError(
                f"siamese.predictor must end as wide as siamese.projector, {self.projector[-1]}: found {self.predictor}"
            )

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables; the averaged networks begin as the others."""
        fresh = super().init(key, spec)
        width = jnp.zeros((1, self.projector[-1]))
        predictor = Perceptron(self.predictor).init(jax.random.fold_in(key, 2), width, train=False)
        average = {"params": jax.tree.map(jnp.copy, fresh["params"]), "updates": jnp.int32(0)}
        own = by_collection({"predictor": predictor})
        params, stats = ({**fresh[name], **own[name]} for name in ("params", "batch_stats"))
        return {"params": params, "batch_stats": {**stats, UNAVERAGED: average}}

    def compared(self, variables: Tree, p: Views, batch: Batch, train: bool) -> tuple[Scalar, Tree]:
        """(4)"""
        q, stats = self.answered(variables, p, train)
        wanted = jax.lax.stop_gradient(self.wanted(variables, batch, train))[:, ::-1]
        angle = jnp.sum(unit(q) * unit(wanted), axis=-1)  # of each view with the other's
        return jnp.mean(jnp.sum(2 - 2 * angle, axis=1)), {"predictor": stats} if stats else {}

    def answered(self, variables: Tree, p: Views, train: bool) -> tuple[Views, Tree]:
        """q of both views, and its statistics after this batch."""
        flat = p.reshape(-1, p.shape[-1])
        q, stats = applied(Perceptron(self.predictor), part(variables, "predictor"), flat, train)
        return q.reshape(p.shape), stats

    def wanted(self, variables: Tree, batch: Batch, train: bool) -> Views:
        """What the averaged networks say of the views."""
        stats = variables["batch_stats"]
        average = {"params": stats[UNAVERAGED]["params"], "batch_stats": stats}
        return self.project(average, batch, train)[1]

    def after_step(self, params: Tree, batch_stats: Tree) -> Tree:
        """(5): the statistics and averages after an update that made these parameters."""
        average = batch_stats[UNAVERAGED]
        progress = jnp.minimum(average["updates"] / self.total_steps, 1.0)
        a = 1 - (1 - self.momentum) * (1 + jnp.cos(jnp.pi * progress)) / 2
        new = {name: params[name] for name in average["params"]}
        moved = jax.tree.map(lambda m, x: a * m + (1 - a) * x, average["params"], new)
        return {**batch_stats, UNAVERAGED: {"params": moved, "updates": average["updates"] + 1}}


def nt_xent(p: Views, temperature: float) -> Scalar:
    """(2)"""
    u = unit(p)
    views = jnp.concatenate([u[:, 0], u[:, 1]])
    scores = views @ views.T / temperature
    scores = jnp.where(jnp.eye(len(views), dtype=bool), -jnp.inf, scores)
    same = jnp.sum(u[:, 0] * u[:, 1], -1) / temperature
    return jnp.mean(jax.nn.logsumexp(scores, axis=1)) - jnp.mean(same)


def unit(x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """Of length 1."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), 1e-12))


def spread(p: Views) -> Scalar:
    """Standard deviation of the features of unit codes, times sqrt(n): near 1, and 0 when they have collapsed."""
    u = unit(p).reshape(-1, p.shape[-1])
    return jnp.sqrt(jnp.sum(jnp.var(u, axis=0)))


def applied(
    module: nn.Module, variables: Tree, x: Array, train: bool, dropout: Key[Array, ""] | None = None
) -> tuple[Any, Tree]:
    """What a network says, and its statistics after this batch ({} where it has none)."""
    rngs = None if dropout is None else {"dropout": dropout}
    out, new = module.apply(variables, x, train=train, mutable=["batch_stats"] if train else [], rngs=rngs)
    return out, new.get("batch_stats", {})


def part(variables: Tree, name: str) -> Tree:
    """The variables of one network."""
    found = {"params": variables["params"][name]}
    stats = variables["batch_stats"].get(name)
    return found if stats is None else {**found, "batch_stats": stats}


def by_collection(made: Tree) -> Tree:
    """{"params": {network: ...}, "batch_stats": {network: ...}}; networks without statistics have none."""
    return {
        kind: {name: tree[kind] for name, tree in made.items() if kind in tree}
        for kind in ("params", "batch_stats")
    }
