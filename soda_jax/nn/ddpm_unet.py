"""The U-Nets of DDPM (arXiv 2006.11239) and DDPM++ (2011.13456) as DDAE (2303.09769) simplifies them, to the last
parameter: no latent, no sections, and everything starts as PyTorch starts it. Time and blocks are in ddpm_blocks.py.

Between the levels either a convolution resamples, strided or after nearest-neighbour upsampling, or (DDPM++) a block,
whose two branches are averaged over 2 x 2 pixels or repeated before the convolution.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice, check_image_size
from soda_jax.nn.conv import depth_to_space, space_to_depth, upsample
from soda_jax.nn.ddpm_blocks import Block, TimeMLP, conv
from soda_jax.nn.ddpm_layout import layout_of
from soda_jax.nn.norm import GroupNorm
from soda_jax.nn.self_condition import SelfCondition, listening
from soda_jax.types import Features, Image

Resample = Literal["conv", "block"]
# (name, h, features, attend, resample) -> its output and its branch: `Maps.block` with the rest filled in
Run = Callable[..., tuple[Array, Array]]
MIDDLE = "middle/branch"  # the last block of the middle, before its input is added: what RepFusion distils


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
    self_condition: str = ""  # the map whose mean later blocks are told (self_condition.py); "": none
    self_gradient: bool = True  # whether the gradient goes through that mean

    def maps(
        self, x: Image, u: Float[Array, " b"], train: bool, labels: Float[Array, "b n"] | None
    ) -> Iterator[tuple[str, Array]]:
        """Name and map, each computed when it is asked for. ValueError for what does not fit."""
        self.check(*x.shape[1:3])
        time = TimeMLP(self.channels, self.label_dim, self.dtype, layout_of(self.layout), name="time")
        told = [time(u, labels)]
        layer = SelfCondition(self.self_gradient, self.dtype, name="self_conditioning")
        body = self.body(x, partial(self.block, told=told, train=train))
        yield from listening(body, self.self_condition, told, layer)

    def body(self, x: Image, run: Run) -> Iterator[tuple[str, Array]]:
        """Down, through the middle, and up."""
        found = []
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
        told: list[Array],
        train: bool,
    ) -> tuple[Array, Array]:
        """One block: its output, and its branch; told: of time, by the last of the list."""
        cls = nn.remat(Block, static_argnums=(3,)) if self.remat == "blocks" else Block
        layout, own = layout_of(self.layout), (self.head_channels, self.dropout, self.dtype)
        layer = cls(features, attend, resample, *own, layout.epsilon, layout.scaled, name=name)
        return layer(h, told[-1], train)

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
