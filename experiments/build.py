"""The one place where a config becomes objects. What is wrong with a value is said here, with its key."""

import re
from collections.abc import Sequence
from typing import get_args

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from data.sources import DataSet, open_data_set
from data.views import Views
from soda_jax.diffusion.samplers import Sampler, times
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import BatchSpec, Method
from soda_jax.methods.soda import SODA, Guidance, keep_all_but
from soda_jax.nn.rays import CAMERAS, Rays
from soda_jax.nn.rays import Kind as RayKind
from soda_jax.nn.resnet import STAGES, ResNet, check_choice
from soda_jax.nn.unet import UNet
from soda_jax.nn.vit import SIZES, ViT
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import Plan, check_batch, make_mesh, plan_mesh
from soda_jax.parallel.sharding import RULES, Rule, Rules, state_shardings
from soda_jax.training.loop import Lengths
from soda_jax.training.optimizer import OptimizerConfig, make_optimizer
from soda_jax.types import Tree

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ENCODERS = [*(f"resnet{depth}" for depth in STAGES), *(f"vit_{size}" for size in SIZES)]
INIT = 2**32 - 1  # stream of the initial parameters: no step has this number


def method(config: ConfigDict, spec: BatchSpec) -> Method:
    """The method that `config.method` names, for batches of this spec."""
    check_choice("method", config.method, ["soda"])
    c = config.model
    return SODA(
        encoder=encoder(config),
        denoiser=denoiser(config, spec["target"].shape[-1]),
        schedule=schedule(config),
        prediction=config.diffusion.prediction,
        loss_in=config.diffusion.loss_in,
        mask_section=c.mask_section,
        mask_all=c.mask_all,
        source_noise=c.source_noise,
        rays=rays(config),
    )


def rays(config: ConfigDict) -> Rays | None:
    """What tells the denoiser which view to paint."""
    c = config.model
    check_choice("model.rays", c.rays, ["none", *get_args(RayKind)])
    return None if c.rays == "none" else Rays(kind=c.rays, scale=c.ray_scale)


def encoder(config: ConfigDict) -> nn.Module:
    """The network from a source to z."""
    c = config.model
    check_choice("model.encoder", c.encoder, ENCODERS)
    kind, dtype = c.encoder, compute_dtype(config)
    if kind.startswith("vit_"):
        return ViT(variant=kind.removeprefix("vit_"), latent_dim=c.latent_dim, patch=c.vit_patch, dtype=dtype)
    fields = {name: c[name] for name in ("latent_dim", "stem", "residual_gain")}
    return ResNet(depth=int(kind.removeprefix("resnet")), width=c.encoder_width, dtype=dtype, **fields)


def denoiser(config: ConfigDict, out_channels: int) -> nn.Module:
    """The network from (xt, t, z) to its prediction."""
    c = config.model
    check_choice("model.grouping", c.grouping, ["per_skip", "per_level", "whole"])
    check_choice("model.remat", c.remat, ["none", "blocks"])
    check_choice("model.patch", c.patch, [1, 2, 4])
    names = "channels multipliers blocks attention heads groups dropout patch grouping residual_rescale remat"
    fields = {name: c[name] for name in names.split()}
    return UNet(out_channels=out_channels, dtype=compute_dtype(config), **fields)


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
    names = ("steps", "eta", "churn", "churn_noise", "churn_range", "clip_x0")
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


def check_hooks(config: ConfigDict, method: SODA) -> None:
    """Raise ValueError, naming the key, for pictures and readings that would fail hours later, when they are due."""
    for name in ("samples", "monitor"):
        if config[name].every_images < 0:
            raise ValueError(
                f"{name}.every_images must be 0 (never) or more, found {config[name].every_images}"
            )
    if config.samples.count < 1:
        raise ValueError(f"samples.count must be 1 or more, found {config.samples.count}")
    if config.monitor.batch < 2:
        raise ValueError(
            f"monitor.batch must be 2 or more, to exchange latents, found {config.monitor.batch}"
        )
    times(schedule(config), sampler(config).steps)
    keep_all_but(method.sections, guidance(config).sections)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW as the config wants it."""
    return make_optimizer(optimizer_config(config))


def optimizer_config(config: ConfigDict) -> OptimizerConfig:
    """What `make_optimizer` and `learning_rate` take."""
    return OptimizerConfig(
        **config.optimizer.to_dict(), total_images=config.train.images, batch=config.train.batch
    )


def lengths(config: ConfigDict) -> Lengths:
    """Of training, in images."""
    return Lengths(
        batch=config.train.batch,
        images=config.train.images,
        log_every=config.train.log_every_images,
        save_every=config.checkpoint.every_images,
    )


def mesh_plan(config: ConfigDict, present: int | None = None) -> Plan:
    """Sizes of the mesh on the devices that are present, and by how much it is folded."""
    present = jax.device_count() if present is None else present
    plan = plan_mesh(config.mesh.data, config.mesh.fsdp, present, config.mesh.fold)
    if processes.process_count() > 1 and plan.devices < present:
        raise ValueError(
            f"mesh.data={plan.data} x mesh.fsdp={plan.fsdp} is {plan.devices} devices, but the {present} of all "
            f"{processes.process_count()} processes must take part: set mesh.data=-1, or start fewer processes"
        )
    check_batch(config.train.batch, config.train.accumulation * plan.folded, plan.devices)
    return plan


def mesh(config: ConfigDict, devices: Sequence[Tree] | None = None) -> Mesh:
    """The mesh of these devices (None: of all that this run has), folded where there are too few."""
    plan = mesh_plan(config, None if devices is None else len(devices))
    return make_mesh(plan.data, plan.fsdp, devices)


def rules(config: ConfigDict) -> Rules:
    """How arrays are cut: the lines of the config, then the table of `sharding.py`. ValueError for no rule."""
    for line in config.mesh.rules:
        if not isinstance(line, tuple) or len(line) != 2:
            raise ValueError(f"mesh.rules must hold pairs (expression, rule), found {line!r}")
        check_choice("mesh.rules", line[1], list(get_args(Rule)))
        try:
            re.compile(line[0])
        except re.error as error:
            raise ValueError(f"mesh.rules: {line[0]!r} is no regular expression ({error})") from error
    return (*config.mesh.rules, *RULES)


def shardings(config: ConfigDict, abstract: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """Where each array of this state lies on the mesh. ValueError for rules that are none."""
    if config.mesh.smallest < 0:
        raise ValueError(f"mesh.smallest must be 0 or more bytes, found {config.mesh.smallest}")
    return state_shardings(abstract, mesh, rules(config), config.mesh.smallest)


def batch_spec(config: ConfigDict) -> BatchSpec:
    """Shapes of a global batch, as it travels to the devices."""
    c, batch = config.data, config.train.batch

    def images(side: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, side, side, c.channels), jnp.uint8)

    index = jax.ShapeDtypeStruct((batch,), jnp.int32)
    pictures = {"source": images(c.source_size), "target": images(c.image_size)}
    return {**pictures, "index": index, **(camera_spec(batch) if rays(config) else {})}


def camera_spec(batch: int) -> BatchSpec:
    """Of what the rays are made of."""
    sides = dict(zip(CAMERAS, (4, 4, 3), strict=True))
    return {name: jax.ShapeDtypeStruct((batch, n, n), jnp.float32) for name, n in sides.items()}


def views(config: ConfigDict) -> Views:
    """How source and target are made of an example."""
    c, cameras = config.data, rays(config) is not None
    return Views(
        **{name: c[name] for name in Views.__dataclass_fields__ if name != "cameras"}, cameras=cameras
    )


def dataset(config: ConfigDict) -> DataSet:
    """The prepared data set."""
    c = config.data
    return open_data_set(c.name, c.dir, train_split=c.train_split, test_split=c.test_split)


def init_key(config: ConfigDict) -> jax.Array:
    """The key of the initial parameters. ValueError for a seed that is out of range."""
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config.seed must be 0 to 2^32 - 1, found {config.seed}")
    return jax.random.fold_in(jax.random.key(config.seed), jnp.uint32(INIT))
