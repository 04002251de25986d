"""In what the U-Nets of DDPM differ that compute alike otherwise: constants that a file of weights does not tell.

ddae        DDAE's simplification (arXiv 2303.09769, released code)
ddpm        the authors' of DDPM (2006.11239), as `google/ddpm-cifar10-32` and its siblings have it
diffusers   the defaults of diffusers' `UNet2DModel`, which its examples train
adm         ADM's (2105.05233, released code), with model.resample = "block"
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One of them.

    last_groups: of the norm before the last convolution. epsilon: of all norms. padding: of strided convolutions, on
    both sides or at the end alone. shift: K - shift is the denominator of the frequencies of time. times: time t in
    (0, 1] is told as the whole number times * t - 1; 0: as it comes. scaled: time scales and shifts, (5) of
    ddpm_blocks.py.
    """

    last_groups: int = 8
    epsilon: float = 1e-5
    padding: Literal["both", "end"] = "both"
    shift: int = 1
    times: int = 0
    scaled: bool = False

    def told(self, u: Float[Array, " b"]) -> Float[Array, " b"]:
        """What the sinusoid is taken of."""
        return jnp.round(u * self.times) - 1 if self.times else u


LAYOUTS = {
    "ddae": Layout(),
    "ddpm": Layout(last_groups=32, epsilon=1e-6, padding="end", times=1000),
    "diffusers": Layout(last_groups=32, shift=0, times=1000),
    "adm": Layout(last_groups=32, shift=0, times=1000, scaled=True),
}


def layout_of(name: str) -> Layout:
    """By its name. ValueError for one that is none."""
    check_choice("model.layout", name, list(LAYOUTS))
    return LAYOUTS[name]
