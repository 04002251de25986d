"""Edits of z section by section: what one depth of the denoiser is told, from one image to another."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from soda_jax.types import Latent


def swap_section(z_a: Latent, z_b: Latent, index: int) -> Latent:
    """z_a with section `index` taken from z_b. Raises ValueError when there is no such section."""
    if not 0 <= index < z_a.shape[1]:
        raise ValueError(f"section must lie in 0..{z_a.shape[1] - 1}, found {index}")
    return z_a.at[:, index].set(z_b[:, index])


def swap_each(z_a: Float[Array, "s d"], z_b: Float[Array, "s d"]) -> Latent:
    """One latent per section: row i is z_a with section i alone taken from z_b."""
    own = jnp.eye(z_a.shape[0], dtype=bool)
    return jnp.where(own[:, :, None], z_b[None], z_a[None])
