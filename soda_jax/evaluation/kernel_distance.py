"""The kernel distance between two sets of features: their squared maximum mean discrepancy (Gretton et al. 2012) under
a polynomial kernel, as the kernel inception distance takes it of Inception's features (arXiv 1801.01401).

    k(x, y) = (x . y / d + 1)^3                                                                                    (1)
    MMD^2 = mean over i != j of k(a_i, a_j) + mean over i != j of k(b_i, b_j) - 2 mean over i, j of k(a_i, b_j)    (2)

(2) is unbiased, whatever the number of images: 0 in expectation for equal distributions, and below 0 half of the time
then. It is taken of disjoint subsets of equal size, whose values are independent of each other, so that

    value = mean over B subsets,   95% interval = value -+ t_(0.975, B - 1) s / sqrt(B)                            (3)

with s their standard deviation. Several views of one scene are not independent: the interval is then too narrow. Nor
are two sets that share images, or that are altered copies of the same: (2) is then a little too low.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

MOST = 10_000  # features kept of a set
SUBSET, SUBSETS = 1000, 10  # images of a subset at most, subsets at least


class Sample:
    """Rows of a stream, all equally likely, in random order; which ones is for the seed to say, not for the batches."""

    def __init__(self, seed: int, most: int = MOST):
        self._random, self._most = np.random.default_rng(seed), most
        self._draws, self._rows = np.zeros(0), None

    def add(self, rows: Float[np.ndarray, "n d"]) -> None:
        """The next rows of the stream: of all rows, those stay whose random numbers are the lowest."""
        draws = np.concatenate([self._draws, self._random.random(len(rows))])
        both = rows if self._rows is None else np.concatenate([self._rows, rows])
        kept = np.argsort(draws, kind="stable")[: self._most]
        self._draws, self._rows = draws[kept], both[kept]

    @property
    def rows(self) -> Float[np.ndarray, "m d"]:
        """ValueError where there was none."""
        if self._rows is None:
            raise ValueError("there is no image to measure")
        return self._rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """(3)."""

    value: float
    interval: tuple[float, float]
    subsets: int
    images: int  # of each set in a subset


def kernel_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d2"]) -> KernelDistance:
    """(3) of rows in random order. ValueError for fewer than 20 of either, or where they are not of one width."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and of {b.shape[1]} numbers cannot be compared")
    least = min(len(a), len(b))
    size = min(SUBSET, least // SUBSETS)
    if size < 2:
        raise ValueError(f"the kernel distance needs {2 * SUBSETS} images or more, found {least}")
    count = least // size
    parts = [slice(i * size, (i + 1) * size) for i in range(count)]
    found = np.array([squared_discrepancy(a[part], b[part]) for part in parts])
    value, half = found.mean(), student.ppf(0.975, count - 1) * found.std(ddof=1) / np.sqrt(count)
    return KernelDistance(
        value=float(value), interval=(float(value - half), float(value + half)), subsets=count, images=size
    )


def squared_discrepancy(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """(2)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(_within(a) + _within(b) - 2 * kernel(a, b).mean())


def kernel(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """(1) of all pairs."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def _within(x: Float[np.ndarray, "n d"]) -> float:
    values = kernel(x, x)
    return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))
