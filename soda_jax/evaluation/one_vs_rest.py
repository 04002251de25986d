"""Linear detectors of every class of a label: logistic regression of each class against the others.

    u = (x - mean) / sqrt(var + ...),   l_c = <w_c, u> + b_c                  (1)  log-odds of class c
    L = mean_i -log sigma(+-l_c(u_i)) + wd/4 |w_c|^2                          (2)  + where y_i = c

It is the two-class case of `linear_probe.py`, (1) to (3) there, for all classes side by side; the weights are handed
back for x as it is, with the normalisation in them.
"""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from soda_jax.evaluation.features import local_mesh
from soda_jax.evaluation.linear_probe import (
    LinearProbe,
    fit_heads,
    minibatches,
    normalisation,
    placed,
    shared_out,
)


def one_vs_rest(
    x: Float[np.ndarray, "b n"],
    y: Int[np.ndarray, " b"],
    classes: int,
    settings: LinearProbe,
    mesh: Mesh | None = None,
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, " k"]]:
    """(w [k, n], b [k]) of (1) for features x; the first pair of `settings.grid()` is what it is fitted with.

    A class without an example gets the weight that a class gets which is never there: it points nowhere.
    """
    mesh = local_mesh() if mesh is None else mesh
    norm = normalisation(x)
    answers = (y[None] == np.arange(classes)[:, None]).astype(np.int32)  # [k, b]
    grid = np.tile(np.asarray(settings.grid()[0]), (1, classes, 1))
    order = minibatches(np.arange(len(x)), settings)
    real = np.ones((classes, 2), bool)
    heads = fit_heads(placed(x, mesh), norm, order, answers, real, *shared_out(grid, mesh))
    kernel, bias = (np.asarray(heads[name])[0] for name in ("kernel", "bias"))  # [k, n, 2], [k, 2]
    mean, scale = norm
    weight = (kernel[..., 1] - kernel[..., 0]) * scale[None]
    return weight, bias[:, 1] - bias[:, 0] - weight @ mean
