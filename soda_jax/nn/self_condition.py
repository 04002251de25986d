"""Self-conditioning of a diffusion net, inspired by DDAE++ (arXiv 2505.10999), whose exact equations are not public.

    e' = e + (1 + w SiLU(e)) W mean(h),   mean over the pixels of the net's own map h          (1)

e is what the blocks are told of time; those behind h are told e' instead. W and w start at zero, so that the net begins
as one without. All of (1) is `assumed`: that the factor of W is one number, of time, and that W has no bias.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

ZEROS = nn.initializers.zeros


class SelfCondition(nn.Module):
    """(1); gradient: whether it goes through the mean, or W and w alone learn."""

    gradient: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, e: Float[Array, "b n"], h: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        pooled = jnp.mean(h.astype(jnp.float32), (1, 2))
        pooled = pooled if self.gradient else lax.stop_gradient(pooled)
        own = {"use_bias": False, "dtype": self.dtype, "kernel_init": ZEROS}
        scale = 1 + nn.Dense(1, **own, name="scale")(nn.silu(e))
        return e + scale * nn.Dense(e.shape[-1], **own, name="project")(pooled)


def listening(
    maps: Iterator[tuple[str, Array]], tap: str, told: list[Array], layer: SelfCondition
) -> Iterator[tuple[str, Array]]:
    """The maps, by name, of a net whose blocks are told `told[-1]`: those behind the one called `tap` by (1).

    tap "": nothing is changed. ValueError for one that there is not, and for the last map, which no block is behind.
    """
    names = []
    for name, h in maps:
        names.append(name)
        yield name, h
        if name == tap:  # only now: who asks for no further map needs none of (1)
            told.append(layer(told[-1], h))
    if tap and tap not in names[:-1]:
        raise ValueError(
            f"ddae.self_condition: expected one of {', '.join(names[:-1])}, or '', found {tap!r}"
        )
