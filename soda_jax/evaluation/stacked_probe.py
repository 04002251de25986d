"""The linear probe on several codes of the same images at once: sections of z, or layers of a network.

The protocol of each is that of linear_probe.py: its grid, its held-out part, its minibatches; one more `vmap`, over the
codes, which are shared out over the devices. All codes of a stack have the same width.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from soda_jax.evaluation.features import local_mesh
from soda_jax.evaluation.linear_probe import (
    LinearProbe,
    choose,
    class_scores,
    fit_heads,
    minibatches,
    normalisation,
    split_by_group,
)
from soda_jax.parallel.sharding import put_rows

Stack = Float[np.ndarray, "s b d"]

_fit = jax.jit(jax.vmap(fit_heads, in_axes=(0, (0, 0), None, None, None, 0, 0)))
_score = jax.jit(jax.vmap(class_scores, in_axes=(0, (0, 0), 0, None)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """For each code and label: the row of the grid that was right most often on the held-out part, and how often."""

    rows: Float[np.ndarray, "s 1 l 2"]  # (learning rate, weight decay)
    holdout: Float[np.ndarray, "s l"]


def choose_heads(
    x: Stack,
    y: Int[np.ndarray, "l b"],
    classes: tuple[int, ...],
    groups: Int[np.ndarray, " b"],
    settings: LinearProbe,
) -> Choice:
    """Fits the grid on a part of the rows and judges it on the rest; arguments as of `linear_probe.probe`."""
    rows, held = split_by_group(groups, settings.holdout, settings.seed)
    grid = np.repeat(np.asarray(settings.grid())[:, None], len(y), axis=1)
    scores = _answered(x, y, real(classes), rows, np.repeat(grid[None], len(x), 0), x[:, held], settings)
    best = [choose(one, y[:, held]) for one in scores]
    chosen = np.stack([np.take_along_axis(grid, i[None, :, None], axis=0) for i, _ in best])
    return Choice(rows=chosen, holdout=np.stack([right for _, right in best]))


def answer_all(
    x: Stack,
    y: Int[np.ndarray, "l b"],
    classes: tuple[int, ...],
    choice: Choice,
    queries: Float[np.ndarray, "s q d"],
    settings: LinearProbe,
) -> Int[np.ndarray, "s l q"]:
    """The class of each query by the chosen heads, fitted again on all rows."""
    return _answered(x, y, real(classes), np.arange(x.shape[1]), choice.rows, queries, settings)[:, 0].argmax(
        -1
    )


def real(classes: tuple[int, ...]) -> Bool[np.ndarray, "l k"]:
    """Which classes each label has."""
    return np.arange(max(classes))[None] < np.asarray(classes)[:, None]


def _answered(
    x: Stack,
    y: Int[np.ndarray, "l b"],
    real: Bool[np.ndarray, "l k"],
    rows: Int[np.ndarray, " f"],
    grid: Float[np.ndarray, "s r l 2"],
    queries: Float[np.ndarray, "s q d"],
    settings: LinearProbe,
) -> Float[np.ndarray, "s r l q k"]:
    """Heads of every code fitted on these rows, and their scores of the queries."""
    mean, scale = (np.stack(part) for part in zip(*(normalisation(one[rows]) for one in x), strict=True))
    arrays = {"x": x, "mean": mean, "scale": scale, "queries": queries}
    arrays |= {"rates": grid[..., 0].astype(np.float32), "decays": grid[..., 1].astype(np.float32)}
    put = put_rows(arrays, local_mesh())  # filled up till the devices divide the codes
    norm, order = (put["mean"], put["scale"]), minibatches(rows, settings)
    heads = _fit(put["x"], norm, order, y, real, put["rates"], put["decays"])
    return np.asarray(_score(heads, norm, put["queries"], real))[: len(x)]
