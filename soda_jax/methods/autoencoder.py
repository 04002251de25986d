"""A denoising autoencoder, to compare with: SODA's encoder and its network, which paints the source again, at once.

    x0^  = D(0, 1, z~),  z~ = E(x + s n) with sections masked                                               (1)
    L    = mean | x - x0^ |^2,  x: the source, scaled to the size of a target                               (2)

So it is the regressor (regressor.py) whose target is its own source: nothing tells z from what only pixels know.
"""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from soda_jax.diffusion.process import PerExample
from soda_jax.methods.base import to_float
from soda_jax.methods.masking import Condition
from soda_jax.methods.regressor import Regressor
from soda_jax.types import Batch, Keys, Tree


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Regressor):
    """A regressor of the source. ValueError where it would be told a view: it has but one."""

    def __post_init__(self):
        super().__post_init__()
        if self.rays:
            raise ValueError("method='autoencoder' paints the view that it sees: set model.rays='none'")

    def losses(
        self, variables: Tree, told: Condition, batch: Batch, keys: Keys, t: PerExample, train: bool
    ) -> Float[Array, " b"]:
        """(2) of each example."""
        source, target = to_float(batch["source"]), batch["target"]
        itself = jax.image.resize(source, target.shape, "linear") if source.shape != target.shape else source
        return super().losses(variables, told, {**batch, "target": itself}, keys, t, train)
