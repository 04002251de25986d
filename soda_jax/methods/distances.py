"""How far a student's features are from a teacher's, by the three losses of RepFusion (arXiv 2308.10916).

s [b, h, w, c]: the student's last map; h [b, h', w', c']: the teacher's; P: a 1 x 1 convolution from c to c' channels.

    hint     mean (GAP(P s) - GAP(h))^2;   dense: mean (P s - h)^2, P s resized to h                          (1)
    at       1000 mean (A(s) - A(h))^2,   A(F) = a / (|a| + 1e-6),  a = sum_c F_c^2 at each pixel, s resized    (2)
    rkd      25 huber(d(s) - d(h)) + 50 huber(cos(s) - cos(h)), of pooled features:                           (3)
             d_ij = |u_i - u_j| / mean of those that are not 0,   cos_ijk: of the angle at j between i and k

Huber's loss turns linear at 1; means are over all entries. (3) holds b^3 angles of a batch of b.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from soda_jax.methods.base import Scalar

Kind = Literal["hint", "hint_dense", "at", "rkd"]
Map = Float[Array, "b _ _ _"]
Pooled = Float[Array, "b n"]
AT_WEIGHT, DISTANCE_WEIGHT, ANGLE_WEIGHT = 1000.0, 25.0, 50.0


def distance(kind: Kind, s: Map, projected: Map, h: Map) -> Scalar:
    """(1), (2) or (3); projected: P s, which only (1) looks at."""
    if kind == "hint":
        return jnp.mean(jnp.square(pool(projected) - pool(h)))
    if kind == "hint_dense":
        return jnp.mean(jnp.square(resized(projected, h) - h))
    return attention_distance(s, h) if kind == "at" else relational_distance(pool(s), pool(h))


def pool(x: Map) -> Float[Array, "b _"]:
    """GAP"""
    return jnp.mean(x, (1, 2))


def resized(x: Map, like: Map) -> Map:
    """To the height and width of another map."""
    if x.shape[1:3] == like.shape[1:3]:
        return x
    return jax.image.resize(x, (len(x), *like.shape[1:3], x.shape[-1]), "linear")


def attention_distance(s: Map, h: Map) -> Scalar:
    """(2)"""
    return AT_WEIGHT * jnp.mean(jnp.square(attention(resized(s, h)) - attention(h)))


def attention(x: Map) -> Float[Array, "b _ _"]:
    """A of (2)."""
    a = jnp.sum(jnp.square(x), -1)
    return a / (length(a.reshape(len(a), -1))[:, None] + 1e-6)


def relational_distance(s: Pooled, h: Float[Array, "b m"]) -> Scalar:
    """(3)"""
    apart = jnp.mean(optax.huber_loss(distances(s), distances(h)))
    turned = jnp.mean(optax.huber_loss(angles(s), angles(h)))
    return DISTANCE_WEIGHT * apart + ANGLE_WEIGHT * turned


def distances(u: Pooled) -> Float[Array, "b b"]:
    """d of (3)."""
    d = length(u[:, None] - u[None])[..., 0]
    return d / (jnp.sum(d) / jnp.maximum(jnp.sum(d > 0), 1))


def angles(u: Pooled) -> Float[Array, "b b b"]:
    """cos of (3), [j, i, k]; 0 where i or k is j."""
    away = u[None] - u[:, None]  # [j, i]
    e = away / jnp.maximum(length(away), 1e-12)
    return jnp.einsum("jin,jkn->jik", e, e, precision="highest")


def length(x: Float[Array, "*b n"]) -> Float[Array, "*b 1"]:
    """Of vectors, with a gradient of 0 at 0."""
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
