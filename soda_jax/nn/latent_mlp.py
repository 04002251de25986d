"""A denoiser of flat latents: a perceptron that sees its input again at every layer (Diff-AE, arXiv 2111.15640).

h_1     = a_1(W_1 zt)                                                               (1)
h_{l+1} = a_{l+1}(W_{l+1} [h_l, zt]),   l = 1 .. L - 2                               (2)
out     = W_L [h_{L-1}, zt]                                                         (3)
a_l(u)  = SiLU(LayerNorm((1 + V_l SiLU(time embedding)) u))                          (4)
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.embed import TimeEmbedding


class LatentMLP(nn.Module):
    """(1) to (4). ValueError unless there are 2 layers or more, of 1 feature or more.

    layers: L, the last one included. width: of the hidden layers. time_width: of the sinusoids of t; the perceptron
    behind them makes 4 times as many features. dtype: of the computation; norms and output are float32.
    """

    layers: int = 10
    width: int = 2048
    time_width: int = 64
    dtype: Any = jnp.float32

    def __post_init__(self):
        for name, least in (("layers", 2), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"prior.{name} must be {least} or more, found {getattr(self, name)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, zt: Float[Array, "b n"], t: Float[Array, " b"]) -> Float[Array, "b n"]:
        embedded = nn.silu(TimeEmbedding(self.time_width, dtype=self.dtype, name="time")(t))
        h = zt
        for number in range(self.layers - 1):
            u = nn.Dense(self.width, dtype=self.dtype, name=f"layer_{number}")(h)
            scale = nn.Dense(self.width, dtype=self.dtype, name=f"scale_{number}")(embedded)
            u = nn.LayerNorm(dtype=jnp.float32, name=f"norm_{number}")((1 + scale) * u)
            h = jnp.concatenate([nn.silu(u), zt], axis=-1)
        return nn.Dense(zt.shape[-1], dtype=jnp.float32, name="out")(h)
