"""A latent prior that is trained along with SODA, off by default: L = L_SODA + lambda L_dsm.

    L_dsm  = E | eps - D(alpha(t) z + sigma(t) eps, t) |^2                                                (1)

Or in its other forms: see `latent_denoiser.py`. Its gradient goes into the encoder too. As the bound of a VAE with
a diffusion prior (LSGM, arXiv 2106.05931), the entropy of q(z | x) is missing from it, which a deterministic encoder
does not have: so (1) is least where z says nothing, for eps is known exactly once z = 0. Only L_SODA holds z open.
Watch `z_square` and `monitor/...` among the metrics, keep lambda small, or train the prior afterwards with the encoder
frozen, which has no such pull (methods/latent_prior.py).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from soda_jax.methods.base import Scalar, stream
from soda_jax.methods.latent_denoiser import LatentDenoiser
from soda_jax.types import Keys, Latent, Tree

INIT = 3  # stream of the key of the initial parameters
DRAWS = 5  # stream of one example's key, beside SODA's


@dataclass(frozen=True, kw_only=True)
class JointPrior(LatentDenoiser):
    """lambda times (1). ValueError for a weight that is not positive."""

    weight: float

    def __post_init__(self):
        super().__post_init__()
        if not self.weight > 0:
            raise ValueError(f"model.joint_prior must be 0 (off) or more, found {self.weight}")

    def params(self, key: Key[Array, ""], latent_dim: int) -> Tree:
        """{"prior": fresh parameters}; those of the other networks do not depend on its being there."""
        own = jax.random.fold_in(key, INIT)
        return {"prior": self.network.init(own, jnp.zeros((1, latent_dim)), jnp.zeros(1))["params"]}

    def __call__(self, params: Tree, z: Latent, keys: Keys) -> Scalar:
        """The term that is added to the loss, of latents of which nothing is masked."""
        return self.weight * jnp.mean(self.losses(params, z.reshape(len(z), -1), stream(keys, DRAWS)))
