"""A latent consistency loss between two views, off by default: VICReg (arXiv 2105.04906) through a projector.

    p, q   = f(z of the source), f(z of the clean target), n rows of d features                            (1)
    L      = 25 mean (p - q)^2 + 25 (V(p) + V(q)) / 2 + (C(p) + C(q))                                      (2)
    V(p)   = mean_i relu(1 - sqrt(var(p_i) + 1e-4))                                                        (3)
    C(p)   = sum_{i != j} cov(p)_ij^2 / d                                                                  (4)

(3) keeps z from collapsing, (4) its features from saying the same. Both are over the whole batch, however many devices
share it; with accumulation over the microbatch. SODA's own loss asks for consistency only through the denoiser.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from soda_jax.methods.base import Scalar, to_float
from soda_jax.types import Batch, Image, Latent, Tree

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # weights of (2)
EPSILON = 1e-4  # of (3)
PROJECTOR = 2  # stream of the key of the initial parameters

Projected = Float[Array, "b n"]


class Projector(nn.Module):
    """f of (1): layers of these widths, LayerNorm and ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "b _"]) -> Float[Array, "b _"]:
        for number, width in enumerate(self.widths):
            z = nn.Dense(width, name=f"layer_{number}")(z)
            if number < len(self.widths) - 1:
                z = nn.relu(nn.LayerNorm(name=f"norm_{number}")(z))
        return z


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """weight times (2). ValueError for a weight that is not positive, or widths that are none."""

    weight: float
    widths: tuple[int, ...]

    def __post_init__(self):
        if not self.weight > 0:
            raise ValueError(f"model.consistency must be 0 (off) or more, found {self.weight}")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"model.projector must hold widths of 1 or more, found {self.widths}")

    def params(self, key: Key[Array, ""], latent_dim: int) -> Tree:
        """{"projector": fresh parameters}; those of the other networks do not depend on its being there."""
        own = jax.random.fold_in(key, PROJECTOR)
        return {"projector": Projector(self.widths).init(own, jnp.zeros((1, latent_dim)))["params"]}

    def __call__(self, params: Tree, source: Latent, target: Latent) -> Scalar:
        """The term that is added to the loss, of the latents of both views."""
        p, q = (
            Projector(self.widths).apply({"params": params}, z.reshape(z.shape[0], -1))
            for z in (source, target)
        )
        return self.weight * vicreg(p, q)


def vicreg(p: Projected, q: Projected) -> Scalar:
    """(2)"""
    together = INVARIANCE * jnp.mean(jnp.square(p - q))
    apart = VARIANCE * (spread_missing(p) + spread_missing(q)) / 2
    return together + apart + COVARIANCE * (correlation(p) + correlation(q))


def spread_missing(p: Projected) -> Scalar:
    """(3)"""
    return jnp.mean(nn.relu(1 - jnp.sqrt(jnp.var(p, axis=0, ddof=1) + EPSILON)))


def correlation(p: Projected) -> Scalar:
    """(4)"""
    centred = p - jnp.mean(p, axis=0, keepdims=True)
    covariance = centred.T @ centred / (p.shape[0] - 1)
    off = covariance * (1 - jnp.eye(p.shape[1]))
    return jnp.sum(jnp.square(off)) / p.shape[1]


def clean_target(batch: Batch) -> Image:
    """The target in [-1, 1], scaled to the size of a source."""
    target = to_float(batch["target"])
    shape = (len(target), *batch["source"].shape[-3:])
    return target if target.shape == shape else jax.image.resize(target, shape, "linear")
