"""The upper bound of what SODA is compared with: the same encoder, trained on the labels themselves.

    L = sum over labels of CE(softmax(W_l z + b_l), y_l)                                                    (1)

z and the pooled features are probed as those of the others, so the heads of the training are not used again.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from soda_jax.methods.base import BatchSpec, Scalar, encoder_variables, to_float
from soda_jax.methods.reading import Reading
from soda_jax.methods.siamese import applied, by_collection
from soda_jax.methods.time_choice import judged
from soda_jax.types import Batch, Keys, Tree


@dataclass(frozen=True, kw_only=True)
class Supervised(Reading):
    """classes: how many each label has, an entry a label; a batch's "labels" are `[b, labels]`. ValueError for none."""

    classes: tuple[int, ...]

    def __post_init__(self):
        super().__post_init__()
        if not self.classes or min(self.classes) < 2:
            raise ValueError(
                f"supervised.classes must hold the number of classes of each label, found {self.classes}"
            )

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables."""
        keys = jax.random.split(key)
        image = jnp.zeros((1, *spec["source"].shape[1:]))
        heads = self.heads.init(keys[1], jnp.zeros((1, self.encoder.latent_dim)))
        return by_collection({"encoder": self.encoder.init(keys[0], image, train=False), "heads": heads})

    @property
    def heads(self) -> nn.Module:
        """One layer for the classes of all labels."""
        return nn.Dense(sum(self.classes))

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(1), averaged over the batch."""
        del keys  # nothing is drawn
        images = to_float(batch["source"])
        (z, _), stats = applied(self.encoder, encoder_variables(variables), images, train)
        logits = self.heads.apply({"params": variables["params"]["heads"]}, z)
        entropies, right = judged(logits, batch["labels"], self.classes)
        moved = {"encoder": stats} if train and stats else {}
        metrics = {"accuracy": jnp.mean(right)}
        return jnp.mean(entropies), {"metrics": metrics, "batch_stats": {**variables["batch_stats"], **moved}}
