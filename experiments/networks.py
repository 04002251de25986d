"""What a config says of networks, noise and pictures, as objects. Wrong values are told by key."""

import re
from typing import Any, get_args

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from soda_jax.diffusion.frameworks import DDPM, EDM, Framework
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.soda import Guidance
from soda_jax.nn.checks import check_choice
from soda_jax.nn.ddpm_layout import layout_of
from soda_jax.nn.ddpm_unet import DDPMUNet
from soda_jax.nn.dit import SIZES as DIT_SIZES
from soda_jax.nn.dit import DiT
from soda_jax.nn.mobilenet import MobileNetV2
from soda_jax.nn.rays import Encoding as RayEncoding
from soda_jax.nn.rays import Frame as RayFrame
from soda_jax.nn.rays import Kind as RayKind
from soda_jax.nn.rays import Projecting, Rays, alone
from soda_jax.nn.resnet import STAGES, ResNet
from soda_jax.nn.unet import UNet
from soda_jax.nn.vit import SIZES, Size, ViT
from soda_jax.nn.wide_resnet import WideResNet
from soda_jax.types import Batch

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ENCODERS = [*(f"resnet{depth}" for depth in STAGES), *(f"vit_{size}" for size in SIZES), "mobilenetv2"]


def rays(config: ConfigDict) -> Rays | None:
    """What tells the denoiser which view to paint."""
    c = config.model
    check_choice("model.rays", c.rays, ["none", *get_args(RayKind)])
    check_choice("model.ray_encoding", c.ray_encoding, get_args(RayEncoding))
    check_choice("model.ray_frame", c.ray_frame, get_args(RayFrame))
    more = {name: c[f"ray_{name}"] for name in ("frame", "scale", "radius", "encoding", "frequencies")}
    return None if c.rays == "none" else Rays(kind=c.rays, **more)


def lens(config: ConfigDict) -> tuple[float, float, float, float] | None:
    """Of images that are encoded without a camera; None: not known."""
    found = config.model.source_lens
    if len(found) not in (0, 4) or not all(length > 0 for length in found[:2]):
        raise ValueError(
            f"model.source_lens must be (fx, fy, cx, cy) in sides of the image, or (), found {found}"
        )
    return tuple(map(float, found)) or None


def cameras_alone(config: ConfigDict) -> Batch:
    """Of an image that is encoded by itself, one row; none where the encoder does not look at them."""
    return alone(lens(config), 1) if config.model.source_rays else {}


def projecting(config: ConfigDict, network: nn.Module, channels: int) -> nn.Module:
    """The network that sees rays behind so many channels of an image, which it may see as mixtures."""
    features = config.model.rgb_projection
    if features < 0:
        raise ValueError(
            f"model.rgb_projection must be 0 (the image as it is) or more channels, found {features}"
        )
    if not features:
        return network
    return Projecting(network, channels=channels, features=features, dtype=compute_dtype(config))


def encoder(config: ConfigDict) -> nn.Module:
    """The network from a source to z."""
    c = config.model
    kind, common = c.encoder, {"latent_dim": c.latent_dim, "dtype": compute_dtype(config)}
    if wide := re.fullmatch(r"wrn_(\d+)_(\d+)", kind):
        return WideResNet(depth=int(wide[1]), widen=int(wide[2]), stem=c.stem, **common)
    check_choice("model.encoder", kind, [*ENCODERS, "wrn_28_2 (any wrn_<depth>_<widening>)"])
    if kind.startswith("vit_"):
        return ViT(variant=kind.removeprefix("vit_"), patch=c.vit_patch, **common)
    common |= {"stem": c.stem, "residual_gain": c.residual_gain}
    if kind == "mobilenetv2":
        return MobileNetV2(width=c.width_multiplier, **common)
    own = {"depth": int(kind.removeprefix("resnet")), "width": c.encoder_width, "pooled_norm": c.pooled_norm}
    return ResNet(**own, **common)


def denoiser(config: ConfigDict, out_channels: int) -> nn.Module:
    """The network from (xt, t, z) to its prediction."""
    c = config.model
    check_choice("model.grouping", c.grouping, ["per_skip", "per_level", "whole"])
    check_choice("model.remat", c.remat, ["none", "blocks"])
    if is_dit(c):
        if c.cross_attention:
            raise ValueError(
                "model.cross_attention=True needs model.denoiser='unet': a DiT does not look at the sources"
            )
        return dit(c, out_channels, grouping=c.grouping, remat=c.remat)
    check_choice("model.patch", c.patch, [1, 2, 4])
    names = "channels multipliers blocks attention heads groups dropout patch grouping residual_rescale remat"
    fields = {name: c[name] for name in (*names.split(), "cross_attention")}
    return UNet(out_channels=out_channels, dtype=compute_dtype(config), **fields)


def is_dit(c: ConfigDict) -> bool:
    """Whether the denoiser of these keys, which are those of `model`, is a DiT, and no U-Net."""
    check_choice("model.denoiser", c.denoiser, ["unet", "dit"])
    return c.denoiser == "dit"


def dit(c: ConfigDict, out_channels: int, **more: Any) -> DiT:
    """The DiT of these keys."""
    check_choice("model.patch", c.patch, [1, 2, 4, 8])
    check_choice("model.dtype", c.dtype, list(DTYPES))
    fields = {"dropout": c.dropout, "patch": c.patch, "dtype": DTYPES[c.dtype]} | more
    return DiT(out_channels=out_channels, **dit_size(c)._asdict(), **fields)


def dit_size(c: ConfigDict) -> Size:
    """Of a name, or of the three keys."""
    check_choice("model.dit_size", c.dit_size, [*DIT_SIZES, "custom"])
    return DIT_SIZES.get(c.dit_size, Size(c.dit_width, c.dit_depth, c.dit_heads))


def compute_dtype(config: ConfigDict) -> jnp.dtype:
    """The type that the networks compute in."""
    check_choice("model.dtype", config.model.dtype, list(DTYPES))
    return DTYPES[config.model.dtype]


def schedule(config: ConfigDict) -> Schedule:
    """The noise schedule."""
    return Schedule(name=config.diffusion.schedule, steps=config.diffusion.steps)


def sampler(config: ConfigDict) -> Sampler:
    """How pictures are made."""
    c = config.samples
    if (
        c.grid == "ddae" and config.diffusion.prediction != "eps"
    ):  # the rest converts by the schedule of training
        raise ValueError(
            f"samples.grid='ddae' is for diffusion.prediction='eps', found {config.diffusion.prediction!r}"
        )
    names = ("steps", "eta", "churn", "churn_noise", "churn_range", "clip_x0", "variance", "grid")
    return Sampler(kind=c.sampler, **{name: c[name] for name in names})


def guidance(config: ConfigDict) -> Guidance:
    """How z is strengthened in pictures."""
    c = config.samples
    return Guidance(
        weight=float(c.guidance),
        sections=tuple(c.guide_sections) or None,
        interval=c.guidance_interval,
        rescale=c.guidance_rescale,
    )


def class_guidance(config: ConfigDict, classes: int) -> Guidance:
    """How the class is, of a net without latent that knows so many. ValueError where there is nothing to strengthen."""
    found = guidance(config)
    if found.weight and not classes:
        raise ValueError(
            f"samples.guidance={found.weight:g}: this net is told nothing that could guide it; set it to 0, or train a "
            "DiT with ddae.classes"
        )
    return found


def diffusion_net(
    c: ConfigDict, noise: ConfigDict, out_channels: int, classes: int, **more: Any
) -> DDPMUNet | DiT:
    """The net without latent of keys as in `model` and `diffusion`. ValueError for what it cannot be told."""
    if classes < 0:
        raise ValueError(f"ddae.classes must be 0 (none) or the classes of the data set, found {classes}")
    if is_dit(c):
        return dit(c, out_channels, class_count=classes, **more)
    if classes:
        raise ValueError(
            f"ddae.classes={classes} needs model.denoiser='dit', found 'unet': a U-Net cannot be told a class"
        )
    names = "channels multipliers blocks attention head_channels resample dropout patch layout"
    times = layout_of(c.layout).times
    if times and (noise.framework, noise.steps) != ("ddpm", times):
        raise ValueError(
            f"model.layout={c.layout!r} is of nets that are told which of {times} times it is: set diffusion.framework="
            f"'ddpm' and diffusion.steps={times}, found {noise.framework!r} and {noise.steps}"
        )
    check_choice("model.dtype", c.dtype, list(DTYPES))
    fields = {name: c[name] for name in names.split()} | more
    return DDPMUNet(out_channels=out_channels, dtype=DTYPES[c.dtype], **fields)


def framework(c: ConfigDict) -> Framework:
    """What a net is trained and asked by, of keys as in `diffusion`. ValueError for a schedule that it cannot have."""
    named = Schedule(name=c.schedule, steps=c.steps)
    check_choice("diffusion.framework", c.framework, ["ddpm", "edm"])
    if (c.framework == "edm") != (c.schedule == "edm"):
        raise ValueError(
            f"diffusion.framework={c.framework!r} does not go with diffusion.schedule={c.schedule!r}: "
            "edm has a schedule of that name, and ddpm any other"
        )
    return EDM(schedule=named) if c.framework == "edm" else DDPM(schedule=named, prediction=c.prediction)
