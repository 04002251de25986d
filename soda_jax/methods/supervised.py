"""Training on the labels themselves: the upper bound of what SODA is compared with, and fine-tuning.

    L = sum over labels of CE(softmax(W_l f + b_l), y_l)                                                    (1)

f is z, or another feature of the encoder. z and the pooled features are probed as those of the others; fine-tuning
asks the heads themselves.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from soda_jax.methods.base import BatchSpec, Scalar, encoder_variables, to_float
from soda_jax.methods.reading import Reading, layer_names
from soda_jax.methods.siamese import applied, by_collection
from soda_jax.methods.time_choice import judged
from soda_jax.types import Batch, Bytes, Features, Image, Keys, Tree


@dataclass(frozen=True, kw_only=True)
class Supervised(Reading):
    """classes: how many each label has, an entry a label; a batch's "labels" are `[b, labels]`. ValueError for none.

    feature: f of (1), the name of one of the encoder's flat features.
    """

    classes: tuple[int, ...]
    feature: str = "z"

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
        (_, features), encoder = self.encoder.init_with_output(keys[0], image, train=False)
        heads = self.heads.init(keys[1], features[self.feature])
        return by_collection({"encoder": encoder, "heads": heads})

    @property
    def heads(self) -> nn.Module:
        """One layer for the classes of all labels."""
        return nn.Dense(sum(self.classes))

    def layers(self, spec: BatchSpec) -> list[str]:
        """The encoder's layers that lead to the feature, as "encoder/<name>", in the order in which they compute."""
        names = layer_names(self.encoder, spec["source"].shape[1:])
        return [f"encoder/{name}" for name in names if self.feature == "z" or name != "head"]

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(1), averaged over the batch."""
        images, encoder = to_float(batch["source"]), encoder_variables(variables)
        dropout = keys[0]  # which a diffusion net has
        (_, features), stats = applied(self.encoder, encoder, images, train, dropout)
        logits = self.heads.apply({"params": variables["params"]["heads"]}, features[self.feature])
        entropies, right = judged(logits, batch["labels"], self.classes)
        moved = {"encoder": stats} if train and stats else {}
        metrics = {"accuracy": jnp.mean(right)}
        return jnp.mean(entropies), {"metrics": metrics, "batch_stats": {**variables["batch_stats"], **moved}}

    def answers(self, variables: Tree, images: Image | Bytes) -> Features:
        """{"answers"}: the likeliest class of each label, `[b, labels]`, as floats; in eval mode."""
        features = self.encode(variables, images)
        logits = self.heads.apply({"params": variables["params"]["heads"]}, features[self.feature])
        parts = jnp.split(logits, np.cumsum(self.classes)[:-1].tolist(), axis=-1)
        return {"answers": jnp.stack([jnp.argmax(part, -1) for part in parts], -1).astype(jnp.float32)}
