"""The U-Nets of DDPM (arXiv 2006.11239) and DDPM++ (2011.13456) as DDAE (2303.09769) simplifies them, to the last
parameter: no latent, no sections, and everything starts as PyTorch starts it.

    time:   e = [sin(w_k u) .., cos(w_k u) ..],  w_k = 10000^(-k / (K - 1)),  k = 0 .. K - 1,  2 K = channels    (1)
            e <- e + A a,  then Linear, SiLU, Linear: 4 channels features; a: labels of augmentation            (2)
    block:  h = conv(SiLU(GN(x))) + Linear(SiLU(e)),  x + conv(dropout(SiLU(GN(h))))                             (3)
    start:  weights and biases ~ U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))                                          (4)

u is what the framework tells of the noise (diffusion/frameworks.py): t / 1000 or log(sigma) / 4, small numbers both.
Between the levels either a convolution resamples, strided or after nearest-neighbour upsampling, or (DDPM++) a block,
whose two branches are averaged over 2 x 2 pixels or repeated before the convolution.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.attention import SelfAttention
from soda_jax.nn.checks import check_choice, check_image_size
from soda_jax.nn.conv import Conv, depth_to_space, space_to_depth, upsample
from soda_jax.nn.ddpm_layout import Layout, layout_of
from soda_jax.nn.norm import EPSILON, GroupNorm
from soda_jax.types import Features, Image

Resample = Literal["conv", "block"]
Run = Callable[
    ..., Array
]  # (name, h, features, attend, resample) -> h: `DDPMUNet.block` with the rest filled in
KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # (4)
MIDDLE = "middle/branch"  # the last block of the middle, before its input is added: what RepFusion distils


def bias_init(fan_in: int) -> Callable:
    """(4) for a bias."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def conv(x: Image, features: int, name: str, dtype: Any, kernel: int = 3, stride: int = 1) -> Array:
    """A convolution that starts as (4)."""
    start = bias_init(kernel**2 * x.shape[-1])
    layer = Conv(features, kernel, stride, dtype, KERNEL, bias_init=start, name=name)
    return layer(x)


def dense(x: Float[Array, "b n"], features: int, name: str, dtype: Any) -> Float[Array, "b {features}"]:
    """A linear layer that starts as (4)."""
    start = bias_init(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=KERNEL, bias_init=start, name=name)(x)


def time_sinusoid(u: Float[Array, " b"], width: int, shift: int = 1) -> Float[Array, "b {width}"]:
    """(1), over K - shift. ValueError for an odd width, or one below 4."""
    if width % 2 or width < 4:
        raise ValueError(f"model.channels must be even and 4 or more, found {width}")
    half = width // 2
    waves = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / (half - shift))
    angle = u.astype(jnp.float32)[:, None] * waves[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def average_pairs(x: Image) -> Float[Array, "b h//2 w//2 c"]:
    """The mean of each 2 x 2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


class TimeMLP(nn.Module):
    """(1) and (2), to 4 * width features. labels [b, n] are looked at where `label_dim` is n, None counts as zeros."""

    width: int
    label_dim: int = 0
    dtype: Any = jnp.float32
    layout: Layout = Layout()

    @nn.compact
    def __call__(
        self, u: Float[Array, " b"], labels: Float[Array, "b n"] | None = None
    ) -> Float[Array, "b m"]:
        e = time_sinusoid(self.layout.told(u), self.width, self.layout.shift)
        if self.label_dim:
            labels = jnp.zeros((*u.shape, self.label_dim)) if labels is None else labels
            e += nn.Dense(self.width, use_bias=False, kernel_init=KERNEL, name="labels")(labels)
        e = dense(e, 4 * self.width, "dense_0", self.dtype)
        return dense(nn.silu(e), 4 * self.width, "dense_1", self.dtype)


class Block(nn.Module):
    """(3), resampled if asked for, then self-attention if asked for. Returns its output and its branch alone.

    head_channels: of attention; 0: one head. resample: "" | "up" | "down".
    """

    features: int
    attend: bool = False
    resample: str = ""
    head_channels: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32
    epsilon: float = EPSILON

    @nn.compact
    def __call__(
        self, x: Image, time: Float[Array, "b n"], train: bool = False
    ) -> tuple[Float[Array, "b h2 w2 c2"], Float[Array, "b h2 w2 c2"]]:
        norm = partial(GroupNorm, dtype=self.dtype, epsilon=self.epsilon)
        h = nn.silu(norm(name="norm0")(x))
        if self.resample:
            change = {"up": upsample, "down": average_pairs}[self.resample]
            h, x = change(h), change(x)
        h = conv(h, self.features, "conv0", self.dtype)
        h += dense(nn.silu(time), self.features, "time", self.dtype)[:, None, None]
        h = nn.silu(norm(name="norm1")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        branch = conv(h, self.features, "conv1", self.dtype)
        if x.shape[-1] != self.features:
            x = conv(x, self.features, "shortcut", self.dtype, kernel=1)
        x = x + branch
        return (x + self.attention(norm(name="attention_norm")(x)) if self.attend else x), branch

    def attention(self, x: Image) -> Image:
        """Self-attention over the pixels of a normalised image."""
        b, h, w, c = x.shape
        tokens = x.reshape(b, h * w, c)
        heads = c // self.head_channels if self.head_channels else 1
        layer = SelfAttention(heads, KERNEL, self.dtype, bias_init(c), name="attention")
        return layer(tokens).reshape(b, h, w, c)


class Maps(nn.Module):
    """The body of a U-Net: its maps, by name.

    Level l works at 1 / (patch * 2^l) of the image's size with channels * multipliers[l] features. Names, in order:
    "in_1" (the first convolution), "in_2", ...: all maps of the way down; "middle", "middle/branch"; "out_1", ...: the
    blocks of the way up that take a map of the way down, blocks + 1 a level.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2  # of each level on the way down
    attention: tuple[bool, ...] = (False, True, False, False)  # for each level; the middle always attends
    head_channels: int = 0
    resample: str = "conv"  # conv (ddpm) | block (ddpmpp)
    dropout: float = 0.1
    patch: int = 1  # the net works on p x p pixels at a time
    label_dim: int = 0
    dtype: Any = jnp.float32
    remat: str = "none"  # "blocks": the backward pass computes each block again
    layout: str = "ddae"  # constants: ddpm_layout.py

    def maps(
        self, x: Image, u: Float[Array, " b"], train: bool, labels: Float[Array, "b n"] | None
    ) -> Iterator[tuple[str, Array]]:
        """Name and map, each computed when it is asked for. ValueError for what does not fit."""
        self.check(*x.shape[1:3])
        time = TimeMLP(self.channels, self.label_dim, self.dtype, layout_of(self.layout), name="time")(
            u, labels
        )
        run, found = partial(self.block, time=time, train=train), []
        for h in self.descend(space_to_depth(x.astype(self.dtype), self.patch), run):
            found.append(h)
            yield f"in_{len(found)}", h
        h, _ = run("middle_block0", found[-1], found[-1].shape[-1], attend=True)
        h, branch = run("middle_block1", h, h.shape[-1])
        yield from (("middle", h), (MIDDLE, branch))
        for number, wide in enumerate(self.ascend(h, found, run), start=1):
            yield f"out_{number}", wide

    def descend(self, h: Image, run: Run) -> Iterator[Array]:
        """All maps of the way down, in order."""
        h, last = conv(h, self.channels, "first", self.dtype), len(self.multipliers) - 1
        yield h
        for level, multiplier in enumerate(self.multipliers):
            for i in range(self.blocks):
                h, _ = run(f"down_{level}_block{i}", h, self.channels * multiplier, self.attention[level])
                yield h
            if level < last:
                h = self.down(f"down_{level}_resample", h, run)
                yield h

    def ascend(self, h: Image, maps: list[Array], run: Run) -> Iterator[Array]:
        """The blocks of the way up; each takes the youngest map left."""
        left = list(maps)
        for level in reversed(range(len(self.multipliers))):
            width = self.channels * self.multipliers[level]
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, left.pop()], -1)
                h, _ = run(f"up_{level}_block{i}", h, width, self.attention[level])
                yield h
            h = self.up(f"up_{level}_resample", h, run) if level else h

    def down(self, name: str, h: Image, run: Run) -> Float[Array, "b h//2 w//2 c"]:
        """To half the size."""
        if self.resample == "block":
            return run(name, h, h.shape[-1], resample="down")[0]
        if layout_of(self.layout).padding == "both":
            return conv(h, h.shape[-1], name, self.dtype, stride=2)
        wide = jnp.pad(
            h, ((0, 0), (1, 1), (1, 1), (0, 0))
        )  # all but the first window are those without its padding
        return conv(wide, h.shape[-1], name, self.dtype, stride=2)[:, 1:, 1:]

    def up(self, name: str, h: Image, run: Run) -> Float[Array, "b 2*h 2*w c"]:
        """To twice the size."""
        if self.resample == "block":
            return run(name, h, h.shape[-1], resample="up")[0]
        return conv(upsample(h), h.shape[-1], name, self.dtype)

    def block(
        self,
        name: str,
        h: Image,
        features: int,
        attend: bool = False,
        resample: str = "",
        *,
        time: Array,
        train: bool,
    ) -> tuple[Array, Array]:
        """One block: its output, and its branch."""
        cls = nn.remat(Block, static_argnums=(3,)) if self.remat == "blocks" else Block
        own = (self.head_channels, self.dropout, self.dtype, layout_of(self.layout).epsilon)
        layer = cls(features, attend, resample, *own, name=name)
        return layer(h, time, train)

    def check(self, height: int, width: int) -> None:
        """Raise ValueError for what does not fit, before anything is computed."""
        levels = len(self.multipliers)
        check_choice("model.remat", self.remat, ("none", "blocks"))
        check_choice("model.resample", self.resample, get_args(Resample))
        check_image_size(height, width, self.patch, levels)
        if len(self.attention) != levels:
            raise ValueError(
                f"model.attention has {len(self.attention)} entries; model.multipliers asks for {levels}"
            )
        for width in {self.channels * m for m in self.multipliers}:
            if self.head_channels and width % self.head_channels:
                raise ValueError(f"model.head_channels={self.head_channels} must divide {width} channels")


class DDPMUNet(Maps):
    """What the framework asks a network for, from (what it sees, what it is told of the noise u, labels)."""

    out_channels: int = 3

    @nn.compact
    def __call__(
        self,
        x: Image,
        u: Float[Array, " b"],
        train: bool = False,
        labels: Float[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b h w {self.out_channels}"], Features]:
        """In float32, and every map by name. ValueError for sides of the image, or attention flags, that do not fit."""
        features = dict(self.maps(x, u, train, labels))
        return self.project(features[self.last_map]), features

    @property
    def last_map(self) -> str:
        """The name of what is projected to an image."""
        return f"out_{(self.blocks + 1) * len(self.multipliers)}"

    @property
    def middle(self) -> str:
        """The name of the map at the lowest resolution."""
        return "middle"

    @nn.nowrap
    def tapped(self, tap: str, scale: float, told: float) -> "Tapped":
        """The net up to one of its maps, as an encoder; its parameters are some of the net's."""
        body = {name: getattr(self, name) for name in Maps.__annotations__}
        return Tapped(**body, tap=tap, scale=scale, told=told)

    def project(self, h: Image) -> Float[Array, "b h2 w2 {self.out_channels}"]:
        """To an image."""
        own = layout_of(self.layout)
        norm = GroupNorm(own.last_groups, dtype=self.dtype, epsilon=own.epsilon, name="out_norm")
        h = nn.silu(norm(h))
        h = conv(h, self.out_channels * self.patch**2, "out_conv", self.dtype)
        return depth_to_space(h.astype(jnp.float32), self.patch)


class Tapped(Maps):
    """A diffusion net as an encoder of clean images: z is the mean over the pixels of one map, and no more is computed.

    "pooled" is z again, for those who expect both, and "map" that map.

    scale, told: what it sees of an image, and what it is told of the noise (`diffusion/frameworks.py`).
    """

    tap: str = "middle"
    scale: float = 1.0
    told: float = 0.0

    @property
    def pyramid(self) -> tuple[str, ...]:
        """The activations that dense heads look at."""
        return ("map",)

    @nn.compact
    def __call__(self, x: Image, train: bool = False) -> tuple[Float[Array, "b n"], Features]:
        """Of images in [-1, 1]. ValueError for a tap that it has not."""
        names, u = [], jnp.broadcast_to(jnp.float32(self.told), x.shape[:1])
        for name, h in self.maps(self.scale * x, u, train, None):
            names.append(name)
            if name == self.tap:
                z = jnp.mean(h.astype(jnp.float32), (1, 2))
                return z, {"map": h, "z": z, "pooled": z}
        raise ValueError(f"ddae.tap: expected one of {', '.join(names)}, found {self.tap!r}")
