"""Drawn views held against the true ones of the same cameras: figures a view, and their means over scenes.

    psnr, ssim    image_quality.py (2), (3); psnr capped at 100 dB
    sharpness     image_quality.py (4), that of all views over that of all true views: 1 is as sharp
    feature_distance_random_resnet18    lpips.py (1) in the eyes of a network that never learned anything: no LPIPS

A further measure, such as LPIPS, is a line of MEASURES. Intervals: intervals.py (3), over scenes.
"""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from soda_jax.evaluation import image_quality, lpips
from soda_jax.evaluation.intervals import bootstrap
from soda_jax.types import Image

Measure = Callable[[Image, Image], Array]  # (views, true views) -> a number a view
Scores = dict[str, np.ndarray]  # measure -> [n]
Row = dict[str, float | list[float]]


MEASURES: Mapping[str, Measure] = {
    "psnr": image_quality.capped_psnr,
    "ssim": image_quality.ssim,
    "sharpness": lambda views, true: image_quality.sharpness(views),
    "feature_distance_random_resnet18": lambda views, true: lpips.random_resnet18()(views, true),
}


def measure(kinds: Sequence[Image], true: Image) -> Float[Array, "b k m"]:
    """Every measure of every kind of view, in the order of MEASURES; images in [-1, 1]."""
    views = jnp.stack(kinds, axis=1)
    flat = (-1, *true.shape[1:])  # row by row all kinds: a batch that is cut over devices stays where it is
    pairs = views.reshape(flat), jnp.broadcast_to(true[:, None], views.shape).reshape(flat)
    scores = jnp.stack([score(*pairs) for score in MEASURES.values()], axis=-1)
    return scores.reshape(*views.shape[:2], -1)


def named(scores: Float[np.ndarray, "n k m"], kinds: Sequence[str]) -> dict[str, Scores]:
    """What `measure` gave, by name."""
    return {kind: {name: scores[:, i, j] for j, name in enumerate(MEASURES)} for i, kind in enumerate(kinds)}


def row(scores: Scores, true: Scores, scenes: Int[np.ndarray, " n"]) -> Row:
    """{"psnr": mean, "psnr_ci95": [low, high], ...}; true: the scores of the true views themselves."""
    found: Row = {}
    for name, values in scores.items():
        mean, interval = bootstrap(values, scenes, true[name] if name == "sharpness" else None)
        found |= {name: mean, f"{name}_ci95": list(interval)}
    return found


def gain(better: Scores, worse: Scores, true: Scores, scenes: Int[np.ndarray, " n"]) -> Row:
    """`row` of the differences, view by view: tells more than whether two intervals overlap."""
    return row({name: better[name] - worse[name] for name in better}, true, scenes)
