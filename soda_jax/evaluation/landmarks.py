"""How well points are found (heat maps, and how points are read from them: `nn/heat_maps.py`).

With p_ik the k-th point of image i, p'_ik where it was found, and d_i a length of that image,

    NME_i   = mean over its labelled points k of |p'_ik - p_ik| / d_i                                   (1)
    NME     = mean over images of (1)                                                                   (2)
    failure = share of images with NME_i > 0.1                                                          (3)
    AUC     = 1 / 0.1 integral from 0 to 0.1 of share of images with NME_i <= e, de                     (4)
            = mean over images of max(1 - NME_i / 0.1, 0)

d is what the data set states: for views3d the diagonal of the object's box, for WFLW |p60 - p72|, between the outer
corners of the eyes. Points that are not labelled, or lie outside of the image, count nowhere; hidden ones do, and (2)
of those in sight is given too. Intervals are those of a bootstrap over scenes (`intervals.py`, (3)).
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from soda_jax.evaluation.intervals import bootstrap

FAILURE = 0.1
SEEN = 2  # of a keypoint: 0 not labelled, 1 hidden, 2 in sight


def errors(
    found: Float[np.ndarray, "b k 2"], truth: Float[np.ndarray, "b k 2"], scale: Float[np.ndarray, " b"]
) -> Float[np.ndarray, "b k"]:
    """|p' - p| / d of each point."""
    return np.linalg.norm(found - truth, axis=-1) / scale[:, None]


def by_image(apart: Float[np.ndarray, "b k"], counts: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """(1) over the points that count (1, else 0); 0 where none does."""
    return (apart * counts).sum(1) / np.maximum(counts.sum(1), 1)


def measure(
    found: Float[np.ndarray, "b k 2"],
    truth: Float[np.ndarray, "b k 2"],
    seen: Int[np.ndarray, "b k"],
    scale: Float[np.ndarray, " b"],
    groups: Int[np.ndarray, " b"],
    names: tuple[str, ...],
) -> dict[str, Any]:
    """{"nme", "nme_ci95", "nme_in_sight", "failure", "auc", ..., "points": {name: its mean error}}.

    groups number the scenes. ValueError where no point is labelled, or the names are not as many as the points.
    """
    labelled = (seen > 0).astype(np.float64)
    if len(names) != truth.shape[1] or not labelled.any():
        raise ValueError(f"expected labelled points, and a name for each of {truth.shape[1]}, found {names}")
    apart = errors(found.astype(np.float64), truth, scale)
    each, any_of = by_image(apart, labelled), labelled.any(1).astype(np.float64)
    in_sight = (seen == SEEN).astype(np.float64)
    values = {
        "nme": (each, any_of),
        "nme_in_sight": (by_image(apart, in_sight), in_sight.any(1).astype(np.float64)),
        "failure": ((each > FAILURE) * any_of, any_of),
        "auc": (np.maximum(1 - each / FAILURE, 0) * any_of, any_of),
    }
    result: dict[str, Any] = {}
    for name, (value, weight) in values.items():
        if weight.any():
            result[name], interval = bootstrap(value, groups, weight)
            result[f"{name}_ci95"] = list(interval)
    sums, counts = (apart * labelled).sum(0), labelled.sum(0)
    points = {n: float(s / c) if c else None for n, s, c in zip(names, sums, counts, strict=True)}
    return result | {"points": points}
