"""The Frechet distance between two sets of features, each taken as a Gaussian (Dowson & Landau 1982,
doi 10.1016/0047-259X(82)90077-X; of images by arXiv 1706.08500).

    d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))                                                       (1)
    tr (C_a C_b)^(1/2) = sum of the singular values of L_a^T L_b,   C = L L^T                                      (2)

(2) takes no root of a product, which is not symmetric, and holds for covariances without full rank. What is called the
distance, as by all who report it, is d^2. Mean and covariance grow batch by batch in float64 and can be merged
(Chan et al. 1983, doi 10.1080/00031305.1983.10483115):

    n = n_a + n_b,   m = m_a + (m_b - m_a) n_b / n,   S = S_a + S_b + (m_b - m_a)(m_b - m_a)^T n_a n_b / n          (3)
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Of `count` features: their mean, and the sum S of (x - mean)(x - mean)^T."""

    count: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """S / (n - 1). ValueError for fewer than two features."""
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 images or more, found {self.count}")
        return self.scatter / (self.count - 1)

    def __add__(self, other: "Moments") -> "Moments":
        """(3): those of both sets together."""
        count, apart = self.count + other.count, other.mean - self.mean
        share = other.count / max(count, 1)
        return Moments(
            count=count,
            mean=self.mean + apart * share,
            scatter=self.scatter + other.scatter + np.outer(apart, apart) * self.count * share,
        )


def of(features: Float[np.ndarray, "n d"]) -> Moments:
    """The moments of some features. ValueError where one of them is not finite."""
    x = np.asarray(features, np.float64)
    if not np.isfinite(x).all():
        raise ValueError("a feature is not a finite number: the network, or an image, is damaged")
    mean = x.mean(0) if len(x) else np.zeros(x.shape[1])
    return Moments(count=len(x), mean=mean, scatter=(x - mean).T @ (x - mean))


def gathered(batches: Iterable[Float[np.ndarray, "_ d"]]) -> Moments:
    """The moments of all batches, one in memory at a time. ValueError where there is none."""
    total = None
    for batch in batches:
        total = of(batch) if total is None else total + of(batch)
    if total is None:
        raise ValueError("there is no image to measure")
    return total


def frechet_distance(a: Moments, b: Moments) -> float:
    """(1), 0 or more. ValueError where the features are not of one width, or too few for a covariance."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} numbers cannot be compared")
    product = np.linalg.svd(factor(a.covariance).T @ factor(b.covariance), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * product
    return max(float(np.sum((a.mean - b.mean) ** 2) + spread), 0.0)


def factor(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d r"]:
    """L of (2), a column for each eigenvalue that is more than rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values.max(), 0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def cautions(a: Moments, b: Moments) -> list[str]:
    """What a reader of the distance should know, in words; none where there are images enough."""
    least, width = min(a.count, b.count), len(a.mean)
    if least > width:
        return []
    return [
        f"{least:,} images give no covariance of {width:,} features its full rank: the Frechet distance is biased "
        "upwards, by an amount that depends on the number of images; compare it at equal numbers only"
    ]
