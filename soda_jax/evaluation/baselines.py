"""The untrained encoder, as strong as it can be made: what the architecture alone is worth.

A network that never trained has BatchNorm statistics of mean 0 and variance 1, which may be far from its
activations. `calibrated` replaces them by those of training images, as the first steps of training would, and
leaves the parameters as they are. Which of the two makes the better baseline is for held-out data to say.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from soda_jax.methods.base import BatchSpec, Method
from soda_jax.types import Batch, Tree


def calibrated(method: Method, variables: Tree, spec: BatchSpec, batches: Iterable[Batch], seed: int) -> Tree:
    """The same parameters, with BatchNorm statistics averaged over the images of `batches`.

    Args:
      method: whose loss in training mode tells new statistics; the compiler drops the rest of the loss.
      variables: of `method.init`; returned unchanged where there are no statistics.
      spec: of a training batch; its "source" is what the encoder sees.
      batches: {"image": uint8 of the source's size, "valid": bool}, not augmented. Batches that are not
        full are left out, unless there is no other; the average is the network's own, with its momentum.
      seed: of the noise that the method adds to its sources.
    """
    if not variables["batch_stats"]:
        return variables
    refresh = jax.jit(lambda stats, images, key: _statistics(method, variables, spec, stats, images, key))
    stats, root = variables["batch_stats"], jax.random.key(seed)
    for number, images in enumerate(_full(batches)):
        stats = refresh(stats, images, jax.random.fold_in(root, number))
    return {**variables, "batch_stats": stats}


def _statistics(
    method: Method,
    variables: Tree,
    spec: BatchSpec,
    stats: Tree,
    images: Float[Array, "..."],
    key: Key[Array, ""],
) -> Tree:
    count = len(images)
    blank = {name: jnp.zeros((count, *x.shape[1:]), x.dtype) for name, x in spec.items()}
    batch = {**blank, "source": images}
    keys = jax.random.split(key, count)
    return method.loss({**variables, "batch_stats": stats}, batch, keys, train=True)[1]["batch_stats"]


def _full(batches: Iterable[Batch]) -> list[np.ndarray]:
    """Images of the full batches; of all, cut to what is valid, where none is full."""
    batches = list(batches)
    full = [batch["image"] for batch in batches if np.all(batch["valid"])]
    return full or [np.asarray(batch["image"])[np.asarray(batch["valid"])] for batch in batches]
