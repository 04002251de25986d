"""95% intervals, of an accuracy and of a mean.

(1) Wilson (1927): the p' with |p - p'| <= q sqrt(p' (1 - p') / n), that is
    (p + q²/2n ± q sqrt(p (1 - p) / n + q²/4n²)) / (1 + q²/n),  q = 1.959964.
(2) Test images that share a scene rise and fall together, so n of them tell less than n independent ones.
    Kish's design effect D = sum_g (sum_{i in g} (c_i - p))² / (n p (1 - p)) says how much less: where D > 1,
    (1) is taken with n / D. With one image a group D = 1.
(3) Of a mean, or a ratio of two, sum_i x_i / sum_i w_i: the bootstrap (Efron 1979). As many scenes as there are, drawn
    with replacement, all examples of a scene together, 2000 times; the interval lies between the quantiles of 2.5% and
    97.5%.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

QUANTILE = 1.959963984540054  # of the normal distribution at 0.975
DRAWS = 2000  # of the bootstrap


def wilson(accuracy: float, count: float | int) -> tuple[float, float]:
    """(1): the interval of an accuracy in 0..1 that was measured on `count` independent examples.

    Raises:
      ValueError: `count` is not positive, or the accuracy lies outside 0..1.
    """
    if count <= 0 or not 0 <= accuracy <= 1:
        raise ValueError(f"an interval needs count > 0 and 0 <= accuracy <= 1, got {count} and {accuracy}")
    square = QUANTILE**2 / count
    half = QUANTILE * np.sqrt(accuracy * (1 - accuracy) / count + square / (4 * count))
    low, high = ((accuracy + square / 2 + side * half) / (1 + square) for side in (-1, 1))
    # At 0 and 1 an end is the accuracy itself, which rounding must not miss.
    return max(0.0, min(float(low), accuracy)), min(1.0, max(float(high), accuracy))


def effective_count(correct: Bool[np.ndarray, " b"], groups: Int[np.ndarray, " b"]) -> float:
    """(2): how many independent examples tell as much as these; the number of groups where all agree."""
    spread = correct.mean() * (1 - correct.mean())
    _, group = np.unique(groups, return_inverse=True)
    if spread == 0:  # every answer right, or every one wrong: nothing tells how groups vary, so count them
        return float(group.max() + 1)
    totals = np.bincount(group, weights=correct - correct.mean())
    return len(correct) / max(1.0, float(np.sum(totals**2) / (len(correct) * spread)))


def accuracy_interval(
    correct: Bool[np.ndarray, " b"], groups: Int[np.ndarray, " b"]
) -> tuple[float, tuple[float, float]]:
    """Accuracy and its 95% interval; `groups` numbers the scene (or image) that an example belongs to."""
    accuracy = float(correct.mean())
    return accuracy, wilson(accuracy, effective_count(correct, groups))


def bootstrap(
    values: Float[np.ndarray, " b"],
    groups: Int[np.ndarray, " b"],
    weights: Float[np.ndarray, " b"] | None = None,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """(3): the mean of the values, or sum(values) / sum(weights), and its 95% interval; `groups` numbers the scenes."""
    _, group = np.unique(groups, return_inverse=True)
    weights = np.ones(len(values)) if weights is None else weights
    sums = np.stack([np.bincount(group, weights=x.astype(np.float64)) for x in (values, weights)])
    top, bottom = resampled(sums, seed)
    return float(sums[0].sum() / sums[1].sum()), middle_95(top / bottom)


def resampled(sums: Float[np.ndarray, "n s"], seed: int = 0) -> Float[np.ndarray, "n draws"]:
    """(3): totals of n quantities over scenes drawn with replacement, from the sums of each of s scenes."""
    count = sums.shape[1]
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return sums @ times.T


def middle_95(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """The quantiles of 2.5% and 97.5%."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
