"""Codes whose scores are known, of factors that are independent of each other."""

import numpy as np

CLASSES = (3, 4, 2)


def factors(count: int = 600, seed: int = 0, classes: tuple[int, ...] = CLASSES) -> np.ndarray:
    """Every factor drawn for itself, [b, f]."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, k, count) for k in classes], axis=1).astype(np.int32)


def perfect(y: np.ndarray) -> np.ndarray:
    """One code a factor, in another order and unit, with a little noise."""
    rng = np.random.default_rng(len(y))
    return (y[:, ::-1] * [5.0, 0.3, 1.0] + 0.01 * rng.normal(size=y.shape)).astype(np.float32)


def redundant(y: np.ndarray) -> np.ndarray:
    """Each code of `perfect`, twice, the noise included."""
    return np.repeat(perfect(y), 2, axis=1)


def mixed(y: np.ndarray) -> np.ndarray:
    """Every code holds as much of every factor: four sums of all, with the signs of a Hadamard matrix."""
    signs = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
    scaled = 2 * y / (np.array(CLASSES) - 1) - 1
    jitter = 0.05 * np.random.default_rng(len(y)).normal(size=(len(y), 4))
    return (scaled @ signs.T + jitter).astype(np.float32)


def noise(y: np.ndarray, width: int = 4) -> np.ndarray:
    """Codes that know nothing."""
    return np.random.default_rng(len(y) + 1).normal(size=(len(y), width)).astype(np.float32)
