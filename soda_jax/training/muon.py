"""Muon (K. Jordan and others, 2024): momentum whose matrices are made orthogonal, so that all directions learn alike.

b <- momentum b + g;   m = b,  or with nesterov  g + momentum b                            (1)
u  = 0.2 sqrt(max(rows, columns)) U V',   m = U S V'                                       (2)
U V' ~ m Q / |m|,   Q = P_1 .. P_5,   P_k = 3.4445 - 4.7750 A_k + 2.0315 A_k^2             (3)
A_1 = m' m / |m|^2,   A_(k+1) = P_k A_k P_k                                                (4)

With (2) an update has the root mean square of AdamW's, so that rates and weight decay carry over (arXiv 2502.16982).
(3) is Jordan's polynomial of the singular values, five times over: it takes them to 0.7 .. 1.1, not to 1. Q / |m| is
roughly (m' m)^(-1/2), so that all of it happens to Gram matrices (4), together to all that have one size: multiplying
m itself five times over costs several times as much where it is tall.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from soda_jax.parallel.sharding import name_of
from soda_jax.types import Tree

STEPS = 5
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
ROOT_MEAN_SQUARE = 0.2  # of an update before the rate
SMALLEST = 1e-30  # of |m|^2: no gradient, no update


def scale_by_muon(momentum: float, nesterov: bool) -> optax.GradientTransformation:
    """(1) and (2). Every array is one matrix, as kernels are: all axes but the last are rows."""
    trace = optax.trace(momentum, nesterov=nesterov)
    return optax.chain(trace, optax.stateless(lambda updates, params=None: orthogonal_updates(updates)))


def labels(params: Tree, pattern: str) -> Tree:
    """For `optax.partition`: "adam", or "muon" for kernels in whose names the expression is found.

    Kernels are arrays of two axes, or a convolution's four. Raises ValueError where it is found in none, or is no
    regular expression.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"optimizer.orthogonal must be a regular expression, found {pattern!r}: {error}"
        ) from None

    def label(path: tuple, leaf: Array) -> str:
        return "muon" if leaf.ndim in (2, 4) and expression.search(name_of(path)) else "adam"

    found = jax.tree_util.tree_map_with_path(label, params)
    if "muon" not in jax.tree.leaves(found):
        raise ValueError(
            f"optimizer.orthogonal must be found in the name of a kernel, found {pattern!r}; "
            "with optimizer.name=adamw there need be none"
        )
    return found


def orthogonal_updates(momenta: Tree) -> Tree:
    """(2) of each array of the tree."""
    leaves, form = jax.tree.flatten(momenta)
    found = orthogonal([tall(leaf) for leaf in leaves])
    found = [ROOT_MEAN_SQUARE * len(matrix) ** 0.5 * matrix for matrix in found]
    return jax.tree.unflatten(form, [as_was(*pair) for pair in zip(found, leaves, strict=True)])


def orthogonal(matrices: Sequence[Array]) -> list[Array]:
    """(3): U V' of each matrix [rows, columns], roughly; rows >= columns.

    In float32, whatever products usually are computed in.
    """
    with jax.default_matmul_precision("highest"):
        roots = inverse_roots([m.T @ m for m in matrices])
        return [m @ root for m, root in zip(matrices, roots, strict=True)]


def inverse_roots(grams: Sequence[Array]) -> list[Array]:
    """Q / |m| of (3) for each m'm [columns, columns]; those of one size are computed together."""
    places, roots = defaultdict(list), list(grams)
    for place, gram in enumerate(grams):
        places[gram.shape].append(place)
    for alike in places.values():
        found = inverse_root(jnp.stack([grams[place] for place in alike]))
        for place, root in zip(alike, found, strict=True):
            roots[place] = root
    return roots


def inverse_root(gram: Float[Array, "n columns columns"]) -> Float[Array, "n columns columns"]:
    """Roughly the inverse of the square root of each."""
    square = jnp.trace(gram, axis1=1, axis2=2)[:, None, None] + SMALLEST
    one = jnp.broadcast_to(jnp.eye(gram.shape[2]), gram.shape)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        a, product = carry
        p = POLYNOMIAL[0] * one + POLYNOMIAL[1] * a + POLYNOMIAL[2] * (a @ a)
        return (p @ a @ p, product @ p), None

    (_, product), _ = jax.lax.scan(step, (gram / square, one), length=STEPS)  # a loop is compiled sooner
    return product / jnp.sqrt(square)


def tall(kernel: Float[Array, "... channels"]) -> Float[Array, "rows columns"]:
    """As a matrix with at least as many rows as columns."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix.T if _is_wide(matrix) else matrix


def as_was(matrix: Float[Array, "rows columns"], kernel: Float[Array, "..."]) -> Float[Array, "..."]:
    """What `tall` took, in the shape of the kernel."""
    wide = _is_wide(kernel.reshape(-1, kernel.shape[-1]))
    return (matrix.T if wide else matrix).reshape(kernel.shape)


def _is_wide(matrix: Float[Array, "rows columns"]) -> bool:
    return matrix.shape[0] < matrix.shape[1]
