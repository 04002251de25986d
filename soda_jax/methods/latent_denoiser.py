"""Diffusion of standardised or plain latents: what a prior does, whether it is trained by itself or along with SODA.

    zt   = alpha(t) z0 + sigma(t) eps,  eps ~ N(0, I)                                                     (1)
    L    = mean | eps - D(zt, t) |   or its square; D may predict x0 = z0 or v instead                    (2)

Latents stand as images of one pixel, which is how the forward process and the samplers know them.
"""

from dataclasses import dataclass
from typing import get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from soda_jax.diffusion.process import Prediction, corrupt, target_of
from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times
from soda_jax.methods.base import normal_like, stream
from soda_jax.nn.checks import check_choice
from soda_jax.types import Image, Keys, Tree

TIME, NOISE = range(2)  # streams of one example's key
LOSSES = {"l1": jnp.abs, "l2": jnp.square}

Flat = Float[Array, "b n"]  # latents, their sections side by side


@dataclass(frozen=True, kw_only=True)
class LatentDenoiser:
    """(1) and (2). ValueError for a loss or a prediction that is none.

    network: `(zt [b, n], t) -> prediction`, of eps as in Diff-AE, x0 or v. Of eps, a small error at high noise is a
    large one in z (1 / alpha = 55 times), so that a young prior leaves the latents that a decoder knows.
    """

    network: nn.Module
    schedule: Schedule
    loss_kind: str = "l1"  # l1 | l2
    prediction: Prediction = "eps"

    def __post_init__(self):
        if self.loss_kind not in LOSSES:
            raise ValueError(f"prior.loss must be one of {', '.join(LOSSES)}, found {self.loss_kind!r}")
        check_choice("prior.prediction", self.prediction, get_args(Prediction))

    def losses(self, params: Tree, z0: Flat, keys: Keys) -> Float[Array, " b"]:
        """(2) of each latent; params: of the network."""
        t, pixels = draw_times(self.schedule, stream(keys, TIME)), as_pixels(z0)
        eps = normal_like(stream(keys, NOISE), pixels)
        out = self.predict(params, corrupt(self.schedule, pixels, eps, t), t)
        error = target_of(self.prediction, pixels, eps, self.schedule.logsnr(t)) - out
        return jnp.mean(LOSSES[self.loss_kind](error), axis=(1, 2, 3))

    def predict(self, params: Tree, zt: Image, t: Float[Array, " b"]) -> Image:
        """What the network says of them."""
        return as_pixels(self.network.apply({"params": params}, zt[:, 0, 0], t))


def as_pixels(z: Flat) -> Image:
    """[b, n] as [b, 1, 1, n]."""
    return z[:, None, None]
