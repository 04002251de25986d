"""Directions along which z varies most: principal components (Pearson 1901), of the whole z or of one section.

    S = mean_i (z_i - m)(z_i - m)^T,   S v_j = l_j v_j,   |v_j| = 1,   l_1 >= l_2 >= ...                 (1)
    share_j = l_j / trace S                                                                              (2)
    z(a) = z + a sqrt(l_j) v_j                                                                           (3)
    eta^2 = sum_c n_c (mean_c - mean)^2 / sum_i (y_i - mean)^2                                           (4)

(3) counts a in standard deviations of the data along v_j. (4), the correlation ratio, is the share of the variance
of the scores y that the classes of a factor explain: R^2 of the best prediction of y from the class.
Nobody has told these directions what they should mean: that they move one factor alone is for (4) to show.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Directions:
    """The leading ones, the first first.

    Attributes:
      mean: of z, [s, d].
      vectors: v of (1), [n, s, d]; of one section: zero in the others.
      deviations: sqrt(l) of (1).
      shares: (2), of the variance of that which was looked at.
    """

    mean: Float[np.ndarray, "s d"]
    vectors: Float[np.ndarray, "n s d"]
    deviations: Float[np.ndarray, " n"]
    shares: Float[np.ndarray, " n"]

    def scores(self, z: Float[np.ndarray, "b s d"]) -> Float[np.ndarray, "b n"]:
        """Where latents lie along each direction, in standard deviations."""
        along = np.einsum("bsd,nsd->bn", z - self.mean[None], self.vectors)
        return (along / np.maximum(self.deviations, np.finfo(np.float32).tiny)[None]).astype(np.float32)


def principal(z: Float[np.ndarray, "b s d"], count: int, section: int | None = None) -> Directions:
    """The `count` leading directions of z, or of one section of it, as many as there are at most.

    The sign of each is such that its largest entry is positive. Raises ValueError for fewer than 2 latents.
    """
    if len(z) < 2:
        raise ValueError(f"directions need 2 latents or more, found {len(z)}")
    inside = np.ones(z.shape[1], bool) if section is None else np.arange(z.shape[1]) == section
    x = z[:, inside].reshape(len(z), -1).astype(np.float64)
    variances, vectors = np.linalg.eigh(np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], -1))
    order = np.argsort(-variances)[:count]
    variances, total = np.maximum(variances[order], 0.0), np.maximum(variances.sum(), np.finfo(float).tiny)
    whole = np.zeros((len(order), *z.shape[1:]), np.float32)
    whole[:, inside] = _signed(vectors.T[order]).reshape(len(order), -1, z.shape[2])
    return Directions(
        mean=z.mean(0, dtype=np.float64).astype(np.float32),
        vectors=whole,
        deviations=np.sqrt(variances).astype(np.float32),
        shares=(variances / total).astype(np.float32),
    )


def _signed(vectors: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], axis=1)
    return vectors * np.where(largest < 0, -1.0, 1.0)


def section_variances(z: Float[np.ndarray, "b s d"]) -> Float[np.ndarray, " s"]:
    """The share of the variance of z that lies in each section."""
    variances = z.var(axis=0, dtype=np.float64).sum(axis=1)
    return (variances / np.maximum(variances.sum(), np.finfo(float).tiny)).astype(np.float32)


def sweep(
    z: Float[np.ndarray, "b s d"], direction: Float[np.ndarray, "s d"], amounts: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "b n s d"]:
    """(3): each latent moved by each amount along `direction`, which holds the length of one unit."""
    return z[:, None] + amounts[None, :, None, None] * direction[None, None]


def correlation_ratio(
    scores: Float[np.ndarray, "b n"], labels: Int[np.ndarray, " b"]
) -> Float[np.ndarray, " n"]:
    """(4) of each column of scores; 0 where a column is constant."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    centred = scores - scores.mean(0, dtype=np.float64)[None]
    sums = np.zeros((len(counts), scores.shape[1]))
    np.add.at(sums, classes, centred)
    between, total = np.sum(sums**2 / counts[:, None], axis=0), np.sum(centred**2, axis=0)
    return np.where(total > 0, between / np.where(total > 0, total, 1.0), 0.0).astype(np.float32)
