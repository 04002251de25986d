"""How well classes of pixels are found, of counts that can be added up over images, batches and devices.

With n[i, j] the pixels of class i that were found as class j,

    IoU_i    = n[i, i] / (sum_j n[i, j] + sum_j n[j, i] - n[i, i])                                      (1)
    mIoU     = mean of (1) over the classes that occur, in the truth or in what was found               (2)
    accuracy = sum_i n[i, i] / sum_ij n[i, j]                                                           (3)

n is summed over all images before (1): a class of few pixels in one image does not count more there. (2) is given with
class 0, the background, and without it. Pixels whose truth is no class (IGNORED, 255) count nowhere. Intervals are
those of a bootstrap over scenes (`intervals.py`, (3)): images of a scene are drawn together.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from soda_jax.evaluation.intervals import middle_95, resampled

Counts = Int[np.ndarray, "b k k2"]  # n of each image; k2 = k


def confusion(
    truth: UInt8[Array, "b h w"], found: Int[Array, "b h w"], classes: int
) -> Int[Array, "b {classes} _"]:
    """n of each image, [b, k, k]; exact below 2^24 pixels an image. A found class that is none counts nowhere."""
    b = truth.shape[0]
    rows, columns = (jax.nn.one_hot(x.reshape(b, -1), classes) for x in (truth, found))
    return jnp.einsum("bnk,bnl->bkl", rows, columns, preferred_element_type=jnp.float32).astype(jnp.int32)


def intersection_over_union(n: Float[np.ndarray, "*n k k2"]) -> Float[np.ndarray, "*n k"]:
    """(1) of each class; NaN for one that occurs nowhere."""
    both = np.einsum("...ii->...i", n)
    either = n.sum(-1) + n.sum(-2) - both
    return np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)


def mean_iou(n: Float[np.ndarray, "*n k k2"], background: bool) -> Float[np.ndarray, "*n"]:
    """(2), with class 0 or without; NaN where no class of these occurs."""
    found = intersection_over_union(n)[..., 0 if background else 1 :]
    occur = ~np.isnan(found)
    count = occur.sum(-1)
    total = np.where(occur, found, 0).sum(-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def pixel_accuracy(n: Float[np.ndarray, "*n k k2"]) -> Float[np.ndarray, "*n"]:
    """(3)."""
    return np.asarray(np.einsum("...ii->...", n) / n.sum((-2, -1)))


METRICS = {
    "miou": lambda n: mean_iou(n, background=True),
    "miou_without_background": lambda n: mean_iou(n, background=False),
    "accuracy": pixel_accuracy,
}


def measure(counts: Counts, groups: Int[np.ndarray, " b"], names: tuple[str, ...]) -> dict[str, Any]:
    """{"miou", "miou_ci95", ..., "iou": {class: (1)}} of the counts of images; groups number their scenes.

    A class that occurs nowhere has None. ValueError where the names are not as many as the classes.
    """
    k = counts.shape[-1]
    if len(names) != k:
        raise ValueError(f"expected a name for each of {k} classes, found {names}")
    _, group = np.unique(groups, return_inverse=True)
    scenes = np.zeros((group.max() + 1, k * k))
    np.add.at(scenes, group, counts.reshape(-1, k * k))
    whole, drawn = scenes.sum(0).reshape(k, k), resampled(scenes.T).T.reshape(-1, k, k)
    found: dict[str, Any] = {}
    for name, metric in METRICS.items():
        found[name] = float(metric(whole))
        found[f"{name}_ci95"] = list(middle_95(metric(drawn)))
    each = intersection_over_union(whole)
    return found | {"iou": {n: None if np.isnan(x) else float(x) for n, x in zip(names, each, strict=True)}}
