"""The diffusion transformer (DiT, arXiv 2212.09748), told of time, of a class if it is to be, and of the sections of z.

    x   = patches W + b + place,  place = [sin w_k i, cos w_k i, sin w_k j, cos w_k j]  of column i, row j         (1)
    c   = MLP([cos w_k u, sin w_k u]) + class,  w_k = 10000^(-k / K),  u = 1000 t - 1                              (2)
    m   = SiLU(c) A + a + SiLU(z_i) Z                                    shift, scale, gate; shift', scale', gate' (3)
    x  <- x + gate  attention(LN(x) (1 + scale) + shift),  then  x <- x + gate' mlp(LN(x) (1 + scale') + shift')   (4)
    out = (LN(x) (1 + scale) + shift) W + b,  [shift, scale] = SiLU(c) A + a                                       (5)

A, a, Z and the W of (5) start at zero (adaLN-Zero), so that a block begins as the identity and the first prediction is
zero. (2) counts steps from 0 as the public weights do: t = 1 / 1000, the first of a schedule of 1000, is their step 0.

SODA's sections (arXiv 2311.17901), which a DiT has no mirrored layers for: Z has no bias, so that a section of zeros
is as though it was absent. Of block l + 1 of L, l = 0 .. L - 1 (`assumed`, and that (5) has none):

    per_skip    section l, of L;   per_level   section 3 l // L: thirds;   whole   section 0, the only one          (6)
"""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from soda_jax.nn.attention import SelfAttention, Tokens
from soda_jax.nn.checks import check_choice, check_patch
from soda_jax.nn.conv import depth_to_space, space_to_depth
from soda_jax.nn.embed import sinusoid
from soda_jax.nn.modulation import GROUPINGS
from soda_jax.nn.resnet import XAVIER
from soda_jax.nn.self_condition import SelfCondition, listening
from soda_jax.nn.vit import Size
from soda_jax.types import Features, Image

SIZES = {"S": Size(384, 12, 6), "B": Size(768, 12, 12), "L": Size(1024, 24, 16), "XL": Size(1152, 28, 16)}
TIME_WIDTH = 256  # 2 K of (2)
PLAIN = 1 / (2 * math.pi)  # the scale of `sinusoid` with which its fastest wave is that of 1
EPSILON = 1e-6
SMALL = nn.initializers.normal(0.02)
ZEROS = nn.initializers.zeros

Vector = Float[Array, "b e"]  # of each example


def places(height: int, width: int, features: int) -> Float[Array, "n {features}"]:
    """`place` of (1), row by row; features must be a multiple of 4."""
    half = features // 2
    along = [
        jnp.roll(sinusoid(jnp.arange(side, dtype=jnp.float32), half, PLAIN), half // 2, 1)  # sines first
        for side in (width, height)
    ]
    grid = (height, width, half)
    both = [jnp.broadcast_to(along[0][None], grid), jnp.broadcast_to(along[1][:, None], grid)]
    return jnp.concatenate(both, -1).reshape(height * width, features)


def normalised(x: Tokens, shift: Vector, scale: Vector, dtype: Any) -> Tokens:
    """LN(x) (1 + scale) + shift, in float32 till the end; LN has no scale and shift of its own."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON)
    return (x * (1 + scale[:, None]) + shift[:, None]).astype(dtype)


def parts(m: Vector, count: int) -> list[Array]:
    """So many equal parts of the features, in order."""
    return list(jnp.moveaxis(m.reshape(m.shape[0], count, -1), 1, 0))


class TimeMLP(nn.Module):
    """The MLP of (2): Linear, SiLU, Linear."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, t: Float[Array, " b"]) -> Float[Array, "b {self.width}"]:
        h = sinusoid(1000.0 * t.astype(jnp.float32) - 1.0, TIME_WIDTH, PLAIN)
        h = nn.Dense(self.width, dtype=self.dtype, kernel_init=SMALL, name="dense_0")(h)
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=SMALL, name="dense_1")(nn.silu(h))


class Block(nn.Module):
    """(3) and (4); z None leaves out its part. Dropout is of each branch, before its gate."""

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Tokens, c: Vector, z: Float[Array, "b d"] | None = None, train: bool = False
    ) -> Tokens:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(x.shape[-1], c, z)
        h = normalised(x, shift, scale, self.dtype)
        x = self.add(x, gate, SelfAttention(self.heads, XAVIER, self.dtype, name="attention")(h), train)
        h = normalised(x, shift2, scale2, self.dtype)
        h = nn.gelu(nn.Dense(4 * x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="mlp0")(h))
        h = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="mlp1")(h)
        return self.add(x, gate2, h, train)

    def modulation(self, width: int, c: Vector, z: Float[Array, "b d"] | None) -> list[Vector]:
        """m of (3), in float32."""
        m = nn.Dense(6 * width, dtype=self.dtype, kernel_init=ZEROS, name="modulation")(nn.silu(c))
        m = m.astype(jnp.float32)
        if z is not None:
            latent = nn.Dense(6 * width, use_bias=False, dtype=self.dtype, kernel_init=ZEROS, name="latent")
            m += latent(nn.silu(z)).astype(jnp.float32)
        return parts(m, 6)

    def add(self, x: Tokens, gate: Vector, branch: Tokens, train: bool) -> Tokens:
        """x + gate branch."""
        branch = nn.Dropout(self.dropout, deterministic=not train)(branch)
        return x + (gate[:, None] * branch).astype(self.dtype)


class Body(nn.Module):
    """The tokens of a DiT as maps [b, h / patch, w / patch, width], by name.

    "block_0" is (1), "block_1", ..., f"block_{depth}" are what the blocks give.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2
    dropout: float = 0.0
    grouping: str = "per_skip"
    class_count: int = 0  # that it can be told of; 0: of none, and there is no part of (2) for it
    label_dim: int = 0  # of labels of an augmentation, which join (2) by a matrix
    dtype: Any = jnp.float32
    remat: str = "none"  # "blocks": the backward pass computes each block again
    self_condition: str = ""  # the map whose mean joins c of later blocks (self_condition.py); "": none
    self_gradient: bool = True  # whether the gradient goes through that mean

    @property
    def sections(self) -> int:
        """How many sections z must have (6)."""
        check_choice("model.grouping", self.grouping, GROUPINGS)
        return {"per_skip": self.depth, "per_level": min(3, self.depth), "whole": 1}[self.grouping]

    @property
    def middle(self) -> str:
        """The map halfway: of XL that which DDAE (arXiv 2303.09769) reads."""
        return f"block_{(self.depth + 1) // 2}"

    @property
    def last_map(self) -> str:
        """The name of what is projected to an image."""
        return f"block_{self.depth}"

    def told(
        self,
        t: Float[Array, " b"],
        labels: Float[Array, "b n"] | None = None,
        classes: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b {self.width}"]:
        """c of (2). labels None counts as zeros; classes None as the null class, the last row of their table."""
        c = TimeMLP(self.width, self.dtype, name="time")(t)
        if self.class_count:
            table = nn.Embed(self.class_count + 1, self.width, embedding_init=SMALL, name="class")
            rows = (
                table.embedding[-1:] if classes is None else table(classes)
            )  # a slice: ONNX knows no look-up
            c += rows.astype(self.dtype)
        if self.label_dim:
            labels = jnp.zeros((*t.shape, self.label_dim)) if labels is None else labels
            matrix = nn.Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=SMALL, name="labels")
            c += matrix(labels)
        return c

    def maps(
        self, x: Image, c: Vector, train: bool, z: Float[Array, "b s d"] | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Name and map, each computed when it is asked for. ValueError for what does not fit."""
        self.check(*x.shape[1:3], z)
        told, layer = [c], SelfCondition(self.self_gradient, self.dtype, name="self_conditioning")
        yield from listening(self.body(x, told, train, z), self.self_condition, told, layer)

    def body(
        self, x: Image, told: list[Array], train: bool, z: Float[Array, "b s d"] | None
    ) -> Iterator[tuple[str, Array]]:
        """(1), and the blocks, each of which is told the last c of the list."""
        grid = space_to_depth(x.astype(self.dtype), self.patch)
        b, h, w, n = grid.shape
        embed = nn.Dense(self.width, dtype=self.dtype, kernel_init=XAVIER, name="embed")
        tokens = embed(grid.reshape(b, h * w, n)) + places(h, w, self.width).astype(self.dtype)[None]
        yield "block_0", tokens.reshape(b, h, w, -1)
        cls = nn.remat(Block, static_argnums=(4,)) if self.remat == "blocks" else Block
        for k in range(self.depth):
            block = cls(self.heads, self.dropout, self.dtype, name=f"block_{k + 1}")
            own = None if z is None else z[:, k * self.sections // self.depth]  # (6)
            tokens = block(tokens, told[-1], own, train)
            yield f"block_{k + 1}", tokens.reshape(b, h, w, -1)

    def check(self, height: int, width: int, z: Float[Array, "b s d"] | None) -> None:
        """Raise ValueError for what does not fit, before anything is computed."""
        check_choice("model.remat", self.remat, ("none", "blocks"))
        check_patch(height, width, self.patch, "data.image_size", "model.patch")
        if self.depth < 1:
            raise ValueError(f"model.dit_depth must be 1 or more, found {self.depth}")
        if self.width < 4 or self.width % 4 or self.heads < 1 or self.width % self.heads:
            raise ValueError(
                f"model.dit_width={self.width} must be a multiple of 4 and of model.dit_heads={self.heads}"
            )
        if z is not None and z.shape[1] != self.sections:
            raise ValueError(
                f"z has {z.shape[1]} sections; model.grouping={self.grouping!r} needs {self.sections}"
            )


class DiT(Body):
    """Prediction from (x, t), with z for SODA, or classes, or labels of an augmentation."""

    out_channels: int = 3
    learn_sigma: bool = (
        False  # as many more, of the variance: features["sigma"], which nothing here is trained by
    )

    @nn.compact
    def __call__(
        self,
        x: Image,
        t: Float[Array, " b"],
        z: Float[Array, "b s d"] | None = None,
        train: bool = False,
        labels: Float[Array, "b n"] | None = None,
        classes: Int[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w {self.out_channels}"], Features]:
        """In float32, and every map by name. t in [0, 1], or what else a framework tells of the noise.

        x may have further channels behind those of the image, which are seen and not predicted. classes: 0 ..
        class_count, the last being the null class. train switches dropout on.
        ValueError for an image, sections of z or classes that do not fit.
        """
        if classes is not None and not self.class_count:
            raise ValueError("this DiT knows no classes: give class_count, or leave the classes out")
        c = self.told(t, labels, classes)
        features = dict(self.maps(x, c, train, z))
        out = self.project(features[self.last_map], c)
        if self.learn_sigma:
            out, features["sigma"] = jnp.split(out, 2, axis=-1)
        return out, features

    def project(self, h: Image, c: Vector) -> Float[Array, "b h2 w2 c2"]:
        """(5), and patches become pixels."""
        m = nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=ZEROS, name="out_modulation")(nn.silu(c))
        shift, scale = parts(m.astype(jnp.float32), 2)
        channels = self.out_channels * (2 if self.learn_sigma else 1)
        layer = nn.Dense(channels * self.patch**2, dtype=self.dtype, kernel_init=ZEROS, name="out")
        flat = normalised(h.reshape(len(h), -1, self.width), shift, scale, self.dtype)
        patches = layer(flat).astype(jnp.float32).reshape(*h.shape[:3], -1)
        return depth_to_space(patches, self.patch)

    @nn.nowrap
    def tapped(self, tap: str, scale: float, told: float) -> "TappedDiT":
        """The net up to one of its maps, as an encoder; its parameters are some of the net's."""
        body = {name: getattr(self, name) for name in Body.__annotations__}
        return TappedDiT(**body, tap=tap, scale=scale, level=told)


class TappedDiT(Body):
    """A DiT as an encoder of clean images, as `ddpm_unet.Tapped` is of a U-Net: z is the mean over one map's pixels.

    scale, level: what it sees of an image, and what it is told of the noise (`diffusion/frameworks.py`).
    """

    tap: str = "block_6"
    scale: float = 1.0
    level: float = 0.0

    @property
    def pyramid(self) -> tuple[str, ...]:
        """The activations that dense heads look at."""
        return ("map",)

    @nn.compact
    def __call__(self, x: Image, train: bool = False) -> tuple[Float[Array, "b n"], Features]:
        """Of images in [-1, 1]. ValueError for a tap that it has not."""
        names, c = [], self.told(jnp.broadcast_to(jnp.float32(self.level), x.shape[:1]))
        for name, h in self.maps(self.scale * x, c, train):
            names.append(name)
            if name == self.tap:
                z = jnp.mean(h.astype(jnp.float32), (1, 2))
                return z, {"map": h, "z": z, "pooled": z}
        raise ValueError(f"ddae.tap: expected one of {', '.join(names)}, found {self.tap!r}")
