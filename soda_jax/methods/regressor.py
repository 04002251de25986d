"""What SODA is compared with: the same encoder and the same network, which paints the target at once.

    x0^  = D([0, rays], 1, z~)                    (1)  no xt to see, and t = 1 for every example
    L    = mean | x0 - x0^ |^2                    (2)  least at the mean of all targets that (z, rays) allow

z~ is SODA's: of a noised source, sections masked. A regressor has no draws to make, so where z leaves open what there
is to see, it paints the blurred mean, which is the image of least squared error. `Regressor` is SODA but for what the
network sees and predicts, so parameters, shapes and names are SODA's.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from soda_jax.diffusion.process import Prediction
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.methods.soda import SODA
from soda_jax.types import Image, Latent, Tree


@dataclass(frozen=True, kw_only=True)
class Regressor(SODA):
    """A SODA that sees no xt. `prediction` and `loss_in` are "x0", whatever a diffusion would predict.

    `denoise` gives the eps that belongs to (1), so that whatever asks a SODA for eps may ask a regressor.
    """

    prediction: Prediction = "x0"
    loss_in: Prediction = "x0"

    def __post_init__(self):
        super().__post_init__()
        if (self.prediction, self.loss_in) != ("x0", "x0"):
            raise ValueError("a regressor predicts the image: leave prediction and loss_in at 'x0'")

    def generate(
        self,
        variables: Tree,
        z: Latent,
        sampler: Sampler,
        key: Key[Array, ""],
        shape: tuple[int, int, int],
        **told: Any,
    ) -> Float[Array, "b h w c"]:
        """(1) within [-1, 1], in one call of the network, whatever sampler, grid, noise and guidance."""
        told = {name: told[name] for name in ("cameras", "context", "on_step") if name in told}
        blank = jnp.zeros((len(z), *shape))
        return super().generate(variables, z, Sampler(steps=1), key, shape, noise=blank, **told)

    def _predict(self, variables: Tree, xt: Image, t: Float[Array, " b"], *rest) -> Image:
        return super()._predict(variables, jnp.zeros_like(xt), jnp.ones_like(t), *rest)
