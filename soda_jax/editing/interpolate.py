"""Strips between two latents, straight (1) or along the arc between their directions (2, Shoemake 1985); of noises (3).

lerp(f)  = (1 - f) a + f b                                            (1)
slerp(f) = r (sin((1 - f) w) a/|a| + sin(f w) b/|b|) / sin w          (2)  w: angle, r = (1 - f)|a| + f|b|
noise(f) = ((1 - f) a + f b) / sqrt((1 - f)^2 + f^2)                  (3)

A denoiser expects noise of variance 1, and (1) between two independent noises has (1 - f)^2 + f^2: half as much in
the middle, which comes out as a grey picture without detail. (3) divides by its root; a and b come out as they are.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

PARALLEL = 3e-3  # below this sine the arc is the chord; rounding alone gives 5e-4


def fractions(count: int) -> Float[Array, " n"]:
    """0 to 1 in equal steps. Raises ValueError for fewer than 2."""
    if count < 2:
        raise ValueError(f"a strip has 2 latents or more, found count={count}")
    return jnp.linspace(0.0, 1.0, count)


def lerp(a: Float[Array, "s d"], b: Float[Array, "s d"], count: int) -> Float[Array, "n s d"]:
    """(1) at `count` equal steps; the first is a, the last is b."""
    f = fractions(count)[:, None, None]
    return (1.0 - f) * a[None] + f * b[None]


def slerp(a: Float[Array, "s d"], b: Float[Array, "s d"], count: int) -> Float[Array, "n s d"]:
    """(2) over the whole latent as one vector; (1) where there is no arc between the two."""
    f = fractions(count)[:, None, None]
    length_a, length_b = jnp.linalg.norm(a), jnp.linalg.norm(b)
    tiny = jnp.finfo(a.dtype).tiny
    unit_a, unit_b = a / jnp.maximum(length_a, tiny), b / jnp.maximum(length_b, tiny)
    angle = jnp.arccos(jnp.clip(jnp.sum(unit_a * unit_b), -1.0, 1.0))
    defined = (jnp.sin(angle) > PARALLEL) & (length_a > 0) & (length_b > 0)
    sine = jnp.where(defined, jnp.sin(angle), 1.0)
    arc = (jnp.sin((1.0 - f) * angle) * unit_a[None] + jnp.sin(f * angle) * unit_b[None]) / sine
    radius = (1.0 - f) * length_a + f * length_b
    return jnp.where(defined, radius * arc, lerp(a, b, count))


def blend(a: Float[Array, "h w c"], b: Float[Array, "h w c"], count: int) -> Float[Array, "n h w c"]:
    """(3) between two independent noises; the first is a, the last is b."""
    f = fractions(count)[:, None, None, None]
    return ((1.0 - f) * a[None] + f * b[None]) / jnp.sqrt((1.0 - f) ** 2 + f**2)
