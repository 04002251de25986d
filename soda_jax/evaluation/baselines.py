"""The untrained encoder, as strong as it can be made: what the architecture alone is worth.

A network that never trained has BatchNorm statistics of mean 0 and variance 1, which may be far from its
activations. `calibrated` replaces them by those of training images, as the first steps of training would, and
leaves the parameters as they are. Which of the two makes the better baseline is for held-out data to say.
"""

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8

from soda_jax.methods.base import BatchSpec, Method
from soda_jax.types import Batch, Bytes, Tree

STEPS = 64  # with BatchNorm's usual momentum of 0.9, 0.1% of the initial statistics is left after as many
LEAST = 16  # images a step


def calibrated(
    method: Method,
    variables: Tree,
    spec: BatchSpec,
    batches: Iterable[Batch],
    seed: int,
    cameras: Batch | None = None,
) -> Tree:
    """The same parameters, with BatchNorm statistics averaged over the images of `batches`.

    Args:
      method: whose loss in training mode tells new statistics; the compiler drops the rest of the loss.
      variables: of `method.init`; returned unchanged where there are no statistics.
      spec: of a training batch; its "source" is what the encoder sees.
      batches: {"image": uint8 of the source's size, "valid": bool}, not augmented.
      seed: of the noise that the method adds to its sources.
      cameras: one row of what the batch of a method that looks at the cameras of its sources holds beside them.
    """
    if not variables["batch_stats"]:
        return variables
    blank = {name: jnp.zeros((1, *x.shape[1:]), x.dtype) for name, x in spec.items()} | dict(cameras or {})
    refresh = jax.jit(lambda stats, images, key: _statistics(method, variables, blank, stats, images, key))
    stats, root = variables["batch_stats"], jax.random.key(seed)
    images = np.concatenate([np.asarray(batch["image"])[np.asarray(batch["valid"])] for batch in batches])
    for number, part in enumerate(_parts(images)):
        stats = refresh(stats, part, jax.random.fold_in(root, number))
    return {**variables, "batch_stats": stats}


def _parts(images: UInt8[np.ndarray, "b h w c"]) -> Iterator[UInt8[np.ndarray, "m h w c"]]:
    """STEPS batches of one size, round and round the images."""
    size = min(len(images), max(LEAST, len(images) // STEPS))
    whole = len(images) // size
    for step in range(STEPS):
        start = step % whole * size
        yield images[start : start + size]


def _statistics(
    method: Method, variables: Tree, blank: Batch, stats: Tree, images: Bytes, key: Key[Array, ""]
) -> Tree:
    count = len(images)
    keys = jax.random.split(key, count)
    rows = {name: jnp.broadcast_to(x, (count, *x.shape[1:])) for name, x in blank.items()}
    batch = {**rows, "source": images}
    return method.loss({**variables, "batch_stats": stats}, batch, keys, train=True)[1]["batch_stats"]
