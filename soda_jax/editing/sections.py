"""Edits of z section by section: what one depth of the denoiser is told, from one image to another."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from soda_jax.types import Latent

DEPTHS = ("coarse", "middle", "fine")


def swap_section(z_a: Latent, z_b: Latent, index: int) -> Latent:
    """z_a with section `index` taken from z_b. Raises ValueError when there is no such section."""
    return mix(z_a, z_b, [index])


def swap_each(z_a: Float[Array, "s d"], z_b: Float[Array, "s d"]) -> Latent:
    """One latent per section: row i is z_a with section i alone taken from z_b."""
    own = jnp.eye(z_a.shape[0], dtype=bool)
    return jnp.where(own[:, :, None], z_b[None], z_a[None])


def mix(z_a: Latent, z_b: Latent, sections: Sequence[int]) -> Latent:
    """z_a with these sections taken from z_b. Raises ValueError for a section that does not exist."""
    wrong = [i for i in sections if not 0 <= i < z_a.shape[1]]
    if wrong:
        raise ValueError(f"section must lie in 0..{z_a.shape[1] - 1}, found {', '.join(map(str, wrong))}")
    taken = np.isin(np.arange(z_a.shape[1]), list(sections))
    return jnp.where(taken[None, :, None], z_b, z_a)


def depths(sections: int) -> dict[str, tuple[int, ...]]:
    """Which sections tell the coarse, which the fine: three parts, as equal as can be.

    Section 0 steers the outermost pair of the denoiser's layers, those of the full resolution, and the last one its
    middle; those of a DiT are in the order of its blocks, whose grain is not known. Raises ValueError for fewer than
    three sections.
    """
    if sections < len(DEPTHS):
        raise ValueError(
            f"coarse, middle and fine need 3 sections of z or more, found {sections}: train with "
            "config.model.grouping='per_skip'"
        )
    parts = np.array_split(np.arange(sections)[::-1], len(DEPTHS))
    return {name: tuple(sorted(map(int, part))) for name, part in zip(DEPTHS, parts, strict=True)}
