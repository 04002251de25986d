"""EDM's augmentation of what a diffusion net is trained on (arXiv 2206.00364, appendix F.2), told to the net.

    x' = x flipped left-right, a coin for each image                                               label 1    (1)
    then each of these with probability p, and otherwise its numbers are 0:
    upside down, a coin                                                                            1          (2)
    scaled by 2^(0.2 a),  a ~ N(0, 1)                                                              a          (3)
    turned by r ~ U(-pi, pi)                                                                       cos r - 1, sin r (4)
    stretched by 2^(0.2 a) along an axis at angle r, and shrunk across it                          a cos r, a sin r (5)
    moved by 0.125 (a, b) of the width and height,  a, b ~ N(0, 1)                                 a, b       (6)

The labels of (5) leave the sign of a open, in EDM too. (3) to (6) are one affine map around the middle, in this order.
It is applied at twice the resolution: up with the lowpass filter of the orthogonal wavelet sym6, whose even shifts are
orthonormal, then bilinear, then down with the same filter; without a map that gives the image back. Beyond its edges an
image is mirrored.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from soda_jax.types import Image, Keys

LABELS = 9
SPREAD, MOVE = 0.2, 0.125  # of (3) and (5), of (6)
# Daubechies, Ten Lectures on Wavelets (1992), table 8.2: the least asymmetric one of 12 coefficients.
SYM6 = np.array(
    [
        0.015404109327027373,
        0.0034907120842174702,
        -0.11799011114819057,
        -0.048311742585633,
        0.4910559419267466,
        0.787641141030194,
        0.3379294217276218,
        -0.07263752278646252,
        -0.021060292512300564,
        0.04472490177066578,
        0.0017677118642428036,
        -0.007800708325034148,
    ]
)
# The filter is not symmetric: pixel n lies at the fine sample 2 n + DELAY.
DELAY = float(np.arange(len(SYM6)) @ SYM6 / SYM6.sum()) - 5
MARGIN = len(SYM6)  # pixels of mirror image around an image, more than the filter reaches

Matrix = Float[Array, "3 3"]
Pixels = Float[Array, "h w c"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """p of (2) to (6). ValueError where it is no probability."""

    probability: float = 0.12  # EDM's for CIFAR-10

    def __post_init__(self):
        if not 0 < self.probability <= 1:
            raise ValueError(f"ddae.augment must be 0 (off) to 1, found {self.probability}")

    def __call__(self, keys: Keys, images: Image) -> tuple[Image, Float[Array, "b 9"]]:
        """Images in [-1, 1], each by its own key, and what the net is told of each."""
        return jax.vmap(self.one)(keys, images)

    def one(self, key: Key[Array, ""], image: Pixels) -> tuple[Pixels, Float[Array, " 9"]]:
        """Of one image."""
        (left, up), labels, matrix = self.drawn(key, image.shape[0], image.shape[1])
        flipped = jnp.where(left > 0, image[:, ::-1], image)
        flipped = jnp.where(up > 0, flipped[::-1], flipped)
        return warp(flipped, matrix), labels

    def drawn(
        self, key: Key[Array, ""], height: int, width: int
    ) -> tuple[Float[Array, " 2"], Float[Array, " 9"], Matrix]:
        """Whether it is flipped, the labels, and the map from places in the new image to those in the old one."""
        names = ("left", "up", "scale", "turn", "stretch", "axis", "move", "chosen")
        k = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        on = jax.random.bernoulli(k["chosen"], self.probability, (5,)).astype(jnp.float32)
        left = jax.random.bernoulli(k["left"]).astype(jnp.float32)
        up = jax.random.bernoulli(k["up"]).astype(jnp.float32) * on[0]
        scale = jax.random.normal(k["scale"]) * on[1]
        turn = jax.random.uniform(k["turn"], minval=-math.pi, maxval=math.pi) * on[2]
        stretch = jax.random.normal(k["stretch"]) * on[3]
        axis = jax.random.uniform(k["axis"], minval=-math.pi, maxval=math.pi) * on[3]
        move = jax.random.normal(k["move"], (2,)) * on[4]
        forward = shifted(MOVE * move[0] * width, MOVE * move[1] * height)
        forward = (
            forward @ turned(axis) @ scaled(2 ** (SPREAD * stretch), 2 ** (-SPREAD * stretch)) @ turned(-axis)
        )
        forward = forward @ turned(turn) @ scaled(2 ** (SPREAD * scale), 2 ** (SPREAD * scale))
        told = (jnp.cos(turn) - 1, jnp.sin(turn), stretch * jnp.cos(axis), stretch * jnp.sin(axis))
        labels = jnp.stack([left, up, scale, *told, *move])
        return jnp.stack([left, up]), labels, jnp.linalg.inv(forward)


def turned(angle: Float[Array, ""]) -> Matrix:
    """By an angle, from x to y."""
    c, s, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros(()), jnp.ones(())
    return jnp.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(3, 3)


def scaled(x: Float[Array, ""], y: Float[Array, ""]) -> Matrix:
    """By factors."""
    return jnp.diag(jnp.stack([x, y, jnp.ones(())]))


def shifted(x: Float[Array, ""], y: Float[Array, ""]) -> Matrix:
    """By pixels."""
    return jnp.eye(3).at[0, 2].set(x).at[1, 2].set(y)


def warp(image: Pixels, matrix: Matrix) -> Pixels:
    """The image whose pixel at place p, (x, y, 1) from the middle, is that of the given one at `matrix` p."""
    height, width = image.shape[:2]
    padded = jnp.pad(image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), "reflect")
    up = [filters(2 * side, side, 0) for side in padded.shape[:2]]
    fine = 2 * jnp.einsum("kh,lw,hwc->klc", *up, padded)
    middle = [width - 1 + DELAY, height - 1 + DELAY]  # of the image, in fine samples
    # MARGIN fine pixels more on each side, for the filter that goes down again
    x, y = jnp.meshgrid(
        *(
            jnp.arange(-MARGIN, 2 * side + MARGIN) - at
            for side, at in zip((width, height), middle, strict=True)
        )
    )
    places = [matrix[i, 0] * x + matrix[i, 1] * y + 2 * matrix[i, 2] + middle[i] for i in range(2)]
    columns, rows = (
        mirrored(place, 2 * side) + 2 * MARGIN for place, side in zip(places, (width, height), strict=True)
    )

    def bilinear(plane: Float[Array, "a b"]) -> Float[Array, "c d"]:
        return jax.scipy.ndimage.map_coordinates(plane, [rows, columns], order=1, mode="nearest")

    moved = jax.vmap(bilinear, in_axes=-1, out_axes=-1)(fine)
    down = [filters(2 * (side + MARGIN), side, MARGIN) for side in (height, width)]
    return jnp.einsum("kh,lw,klc->hwc", *down, moved) / 2


def filters(fine: int, coarse: int, start: int) -> Float[Array, "{fine} {coarse}"]:
    """h_{k - 2 n + 5}, of fine samples k, the first of which is -start, and pixels n."""
    tap = np.arange(fine)[:, None] - start - 2 * np.arange(coarse)[None] + 5
    inside = (tap >= 0) & (tap < len(SYM6))
    return jnp.asarray(np.where(inside, SYM6[np.clip(tap, 0, len(SYM6) - 1)], 0.0), jnp.float32)


def mirrored(place: Float[Array, "a b"], side: int) -> Float[Array, "a b"]:
    """Places in fine samples; those beyond the margin are folded back at the middles of the outermost pixels."""
    first, length = DELAY, side - 2
    folded = length - jnp.abs(jnp.mod(place - first, 2 * length) - length) + first
    beyond = (place < -MARGIN) | (place > side - 1 + MARGIN)
    return jnp.where(beyond, folded, place)
