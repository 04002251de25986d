"""Do features agree on two views of an image, and do they fill the sphere? Alignment and uniformity (arXiv 2005.10242).

    u       = f / |f|                                                                            (1)
    align   = E_i |u_i - u'_i|^2,  u, u' of two views of image i: 0 (the same) .. 4              (2)
    uniform = log E_{i < j} exp(-2 |u_i - u_j|^2):  -8 .. 0 (one point)                          (3)

Small is good, of both. The mean of (3) is over the pairs of a global batch; it is averaged over both views, and over
batches by their pairs. So (2) is of an image and its batch does not matter, and (3) hardly depends on its size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from soda_jax.evaluation.features import one_behind, put_filled
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_whole, replicated
from soda_jax.types import Batch, Features, Tree

Codes = Float[Array, "b n"]
Valid = Bool[Array, " b"]  # False: a row that only fills the batch
Scalar = Float[Array, ""]
TwoViews = Callable[[Tree, Batch], tuple[Features, Features]]  # (variables, batch) -> features of either view
SHARPNESS = 2.0  # of (3)


class Sums(NamedTuple):
    """Of one batch: the sum of (2) with its images, and (3) with its pairs."""

    apart: Scalar
    images: Scalar
    uniform: Scalar
    pairs: Scalar


@dataclass(frozen=True, kw_only=True)
class Measures:
    """(2) and (3) of one feature."""

    align: float
    uniform: float


def on_sphere(f: Codes) -> Codes:
    """(1) in float32, whatever the scale; zeros stay zeros."""
    f = f.astype(jnp.float32)
    largest = jnp.max(
        jnp.abs(f), axis=-1, keepdims=True
    )  # squares of what is near 1 neither overflow nor vanish
    scaled = f / jnp.where(largest > 0, largest, 1.0)
    return scaled / jnp.maximum(jnp.linalg.norm(scaled, axis=-1, keepdims=True), 1.0)


def apart(u: Codes, other: Codes) -> Float[Array, " b"]:
    """|u - u'|^2 of each row, by differences: codes that nearly agree would cancel in products."""
    return jnp.sum(jnp.square(u - other), axis=-1)


def uniformity(u: Codes, valid: Valid) -> Scalar:
    """(3) of points on the sphere, over the pairs of valid rows; 0 where there is none."""
    products = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST)
    lengths = jnp.sum(jnp.square(u), axis=-1)
    squares = jnp.maximum(lengths[:, None] + lengths[None] - 2 * products, 0.0)
    pairs = valid[:, None] & valid[None] & ~jnp.eye(len(u), dtype=bool)  # each of them twice
    count = jnp.sum(pairs.astype(jnp.float32))
    total = jax.nn.logsumexp(jnp.where(pairs, -SHARPNESS * squares, -jnp.inf))
    return jnp.where(count > 0, total - jnp.log(jnp.maximum(count, 1.0)), 0.0)


def sums(f: Codes, other: Codes, valid: Valid) -> Sums:
    """Of the features of both views of a batch."""
    u, v, images = on_sphere(f), on_sphere(other), jnp.sum(valid.astype(jnp.float32))
    return Sums(
        apart=jnp.sum(jnp.where(valid, apart(u, v), 0.0)),
        images=images,
        uniform=(uniformity(u, valid) + uniformity(v, valid)) / 2,
        pairs=images * (images - 1) / 2,
    )


class Meter:
    """Compiles two views of a batch and their measures once, and runs over batches, cut over all devices.

    Args:
      two_views: pure; batches hold "valid" and whatever it looks at.
      names: of the features that are measured; the compiler leaves out what the others need.
      mesh: default: all devices of all processes.
    """

    def __init__(self, two_views: TwoViews, names: tuple[str, ...], mesh: Mesh | None = None):
        self.mesh, self.names = make_mesh() if mesh is None else mesh, names

        def program(variables: Tree, batch: Batch) -> dict[str, Sums]:
            first, second = two_views(variables, batch)
            return {name: sums(first[name], second[name], batch["valid"]) for name in names}

        self.program = jax.jit(program, out_shardings=replicated(self.mesh))

    def __call__(self, variables: Tree, batches: Iterable[Batch]) -> dict[str, Measures]:
        """(2) and (3) by feature. Of several processes each gives its rows. ValueError where there is no pair."""
        variables = put_whole(variables, self.mesh)
        started = (self.program(variables, put_filled(batch, self.mesh)) for batch in batches)
        pieces = [jax.tree.map(float, jax.device_get(piece)) for piece in one_behind(started)]
        return {name: joined([piece[name] for piece in pieces]) for name in self.names}


def joined(pieces: list[Sums]) -> Measures:
    """Of all batches. ValueError where there is no pair."""
    pairs, images = (sum(getattr(piece, name) for piece in pieces) for name in ("pairs", "images"))
    if not pairs:
        raise ValueError("uniformity needs two images in a batch at least: raise --images or --batch")
    uniform = sum(piece.uniform * piece.pairs for piece in pieces) / pairs
    return Measures(align=sum(piece.apart for piece in pieces) / images, uniform=uniform)
