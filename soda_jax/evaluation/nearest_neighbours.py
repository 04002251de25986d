"""k nearest neighbours by cosine, exact, for any number of labels at once.

The similarities are a matrix product in chunks, and the k best are carried from chunk to chunk, so 10,000
queries against 60,000 examples need no 10,000 x 60,000 matrix. Two rules leave only one answer:
  equal similarities: the example with the lower row number is nearer;
  equal votes: the smallest class number wins (as in scikit-learn's KNeighborsClassifier).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from soda_jax.evaluation.features import local_mesh
from soda_jax.parallel.sharding import put_rows, replicated

QUERIES = 512  # rows of one matrix product; with EXAMPLES columns it takes 64 MB
EXAMPLES = 32768


def _unit(x: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
    """Rows of length 1; a row of zeros stays one, and is equally far from everything."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.maximum(norm, np.finfo(np.float32).tiny)).astype(np.float32)


def _chunks(x: Float[np.ndarray, "b n"], rows: int) -> Float[np.ndarray, "p r n"]:
    """Cut into pieces of `rows`; the last is filled up with zeros."""
    pieces = -(-len(x) // rows)
    filled = np.zeros((pieces * rows, x.shape[1]), np.float32)
    filled[: len(x)] = x
    return filled.reshape(pieces, rows, x.shape[1])


@partial(jax.jit, static_argnames="k")
def _nearest(
    pieces: Float[Array, "p r n"], query: Float[Array, "q n"], count: Int[Array, ""], k: int
) -> Int[Array, "q k"]:
    """Row numbers of the k most similar examples, nearest first; rows from `count` on are filling."""
    rows = pieces.shape[1]

    def piece(best, number_and_piece):
        number, examples = number_and_piece
        index = number * rows + jnp.arange(rows)
        similarity = jnp.dot(query, examples.T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where((index < count)[None], similarity, -jnp.inf)
        value, place = jax.lax.top_k(similarity, min(k, rows))
        # What was found before has lower row numbers and stands first, where top_k prefers it among equals.
        value = jnp.concatenate([best[0], value], axis=1)
        index = jnp.concatenate([best[1], index[place]], axis=1)
        value, place = jax.lax.top_k(value, k)
        return (value, jnp.take_along_axis(index, place, axis=1)), None

    start = (jnp.full((len(query), k), -jnp.inf), jnp.full((len(query), k), -1))
    (_, index), _ = jax.lax.scan(piece, start, (jnp.arange(len(pieces)), pieces))
    return index


def neighbours(
    examples: Float[np.ndarray, "b n"],
    queries: Float[np.ndarray, "q n"],
    k: int = 20,
    *,
    chunk: int = EXAMPLES,
    query_chunk: int = QUERIES,
    mesh: Mesh | None = None,
) -> Int[np.ndarray, "q k"]:
    """Row numbers in `examples` of the k nearest by cosine, nearest first. The chunks only bound the memory.

    Queries are shared out over the devices of the mesh (default: all of this process); examples lie on each.

    Raises:
      ValueError: there are fewer than k examples.
    """
    if not 1 <= k <= len(examples):
        raise ValueError(
            f"config.probe.knn_k must be in 1..{len(examples)} (the examples to search), got {k}: "
            "lower it or raise config.probe.max_train"
        )
    mesh = local_mesh() if mesh is None else mesh
    pieces = jax.device_put(_chunks(_unit(examples), min(chunk, len(examples))), replicated(mesh))
    batches = _chunks(_unit(queries), min(query_chunk, len(queries)))
    shared = (put_rows({"x": batch}, mesh)["x"] for batch in batches)
    found = [_nearest(pieces, batch, np.int32(len(examples)), k) for batch in shared]
    return np.concatenate([np.asarray(index)[: len(batches[0])] for index in found])[: len(queries)]


def vote(votes: Int[np.ndarray, "q k"], classes: int) -> Int[np.ndarray, " q"]:
    """The class with the most votes in each row; the smallest class number among equals."""
    counts = np.zeros((len(votes), classes), np.int32)
    np.add.at(counts, (np.arange(len(votes))[:, None], votes), 1)
    return counts.argmax(axis=1)
