"""Are generated images copies of training images? How near they come to one, beside how near test images come.

    d(q)   = min_x |q - x|                           over training images x                             (1)
    ratio  = median d(generated) / median d(test)    about 1, or more; near 0 for copies                (2)
    copies = share of d(generated) below the 1% quantile of d(test)   about 0.01; near 1 for copies     (3)

Test images are as far from training images as new images of the same kind are, in whatever space: so (2) and (3) need
no threshold of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

QUANTILE = 0.01  # of (3)
QUERIES = 256  # rows of one matrix product


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Of each query: the row of the example that is nearest, and its distance (1)."""

    row: Int[np.ndarray, " q"]
    distance: Float[np.ndarray, " q"]

    def closest(self, count: int) -> Int[np.ndarray, " _"]:
        """The queries that come nearest, nearest first."""
        return np.argsort(self.distance, kind="stable")[:count]


def nearest(examples: Float[np.ndarray, "b n"], queries: Float[np.ndarray, "q n"]) -> Nearest:
    """The nearest example of each query, the first among equals. ValueError where there is no example."""
    if not len(examples):
        raise ValueError("there is no training image to compare with: raise --train")
    squares = np.square(examples).sum(1)

    def rows() -> Iterator[np.ndarray]:
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES]
            yield (squares[None] - 2 * part @ examples.T).argmin(1)  # |q|^2 is the same for all examples

    row = np.concatenate([*rows(), np.zeros(0, np.int64)]).astype(np.int64)
    return Nearest(row=row, distance=np.linalg.norm(queries - examples[row], axis=1))


def compared(generated: Float[np.ndarray, " q"], test: Float[np.ndarray, " r"]) -> dict[str, float]:
    """{"median", "median_test", "ratio" (2), "copies" (3)} of the distances (1) of both."""
    median, expected = float(np.median(generated)), float(np.median(test))
    return {
        "median": median,
        "median_test": expected,
        "ratio": median / expected if expected else float("nan"),
        "copies": float(np.mean(generated < np.quantile(test, QUANTILE))),
    }
