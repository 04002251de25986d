"""Networks small enough that a test compiles them in a second, behind the seams of the real ones."""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from soda_jax.diffusion.frameworks import DDPM, EDM
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import moving
from soda_jax.methods.ddae import DDAE
from soda_jax.methods.dense import Dense, Landmarks, Segmentation
from soda_jax.methods.joint_prior import JointPrior
from soda_jax.methods.latent_prior import LatentPrior
from soda_jax.methods.repfusion import RepFusion
from soda_jax.methods.siamese import BYOL, SimCLR, VICReg
from soda_jax.methods.soda import SODA
from soda_jax.methods.supervised import Supervised
from soda_jax.methods.time_choice import Policy, Uniform
from soda_jax.nn.attention import CrossAttention
from soda_jax.nn.conv import FAN_IN
from soda_jax.nn.ddpm_unet import MIDDLE, DDPMUNet
from soda_jax.nn.dense_heads import HeatMapHead, SegmentationHead
from soda_jax.nn.dit import DiT
from soda_jax.nn.latent_mlp import LatentMLP
from soda_jax.nn.rays import Rays
from soda_jax.training.optimizer import Ema, OptimizerConfig, make_optimizer
from soda_jax.training.state import create
from soda_jax.training.step import make_step

SIZE = 8
# the U-Net of DDAE; 3 channels a group: of one alone, a bias before the norm would have no gradient but rounding
NET = {
    "out_channels": 1,
    "channels": 12,
    "multipliers": (1, 1),
    "blocks": 1,
    "attention": (False, True),
    "dropout": 0.1,
}


class Encoder(nn.Module):
    """One convolution, a norm (BatchNorm or none), one layer."""

    latent_dim: int = 6
    batch_norm: bool = False
    last_map: str = ""  # the name under which it gives the map that it pools

    @property
    def pyramid(self):
        return (self.last_map,)

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=not self.batch_norm)(images)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        pooled = jnp.mean(nn.silu(x), axis=(1, 2))
        z = nn.Dense(self.latent_dim)(pooled)
        return z, {"pooled": pooled, "z": z} | ({self.last_map: x} if self.last_map else {})


class Denoiser(nn.Module):
    """Two convolutions; section i of z shifts the i-th third of the channels; attention to a context."""

    sections: int = 3
    listens: bool = True
    dropout: float = 0.0
    channels: int = 0  # of the prediction; 0: as many as xt has

    @nn.compact
    def __call__(self, xt, t, z, train=False, context=None):
        shifts = nn.vmap(
            nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=1, out_axes=1
        )
        shift = shifts(4)(nn.silu(z)).reshape(z.shape[0], -1)
        shift = shift if self.listens else jnp.zeros_like(shift)
        x = nn.Conv(12, (3, 3))(xt) + shift[:, None, None] + nn.Dense(12)(t[:, None])[:, None, None]
        if context is not None:
            x += CrossAttention(2, FAN_IN)(x.reshape(len(x), -1, 12), context).reshape(x.shape)
        x = nn.Dropout(self.dropout)(nn.silu(x), deterministic=not train)
        return nn.Conv(self.channels or xt.shape[-1], (3, 3))(x), {}


def ddae(framework="ddpm", **changes) -> DDAE:
    """A DDAE of the smallest U-Net that has all there is."""
    framed = {
        "ddpm": DDPM(schedule=Schedule(name="linear")),
        "edm": EDM(schedule=Schedule(name="edm", steps=18)),
    }
    fields = {"denoiser": DDPMUNet(**{**NET, **changes.pop("net", {})}), "framework": framed[framework]}
    return DDAE(**{**fields, "tap": "out_2", "level": 4, **changes})


def dit(**changes) -> DiT:
    """The smallest DiT that has two sections."""
    fields = {"width": 16, "depth": 2, "heads": 2, "patch": 2, "dropout": 0.1, "out_channels": 1}
    return DiT(**{**fields, **changes})


def siamese(name, **changes):
    """One of the methods of two views, with BatchNorm everywhere."""
    kind = {"simclr": SimCLR, "vicreg": VICReg, "byol": BYOL}[name]
    own = {"predictor": (8, 6), "total_steps": 100} if name == "byol" else {}
    return kind(**{"encoder": Encoder(batch_norm=True), "projector": (8, 6), **own, **changes})


def repfusion(name, **changes) -> RepFusion:
    """A student of the tiny DDAE, whose times are chosen by this name."""
    teacher = ddae(net={"dropout": 0.0}, tap=MIDDLE, draws=0)
    choice = {
        "fixed": Uniform(first=6, count=1),
        "uniform": Uniform(count=50),
        "rl": Policy(actions=1000, classes=(2, 3), horizon=20),
    }[name]
    fields = {"encoder": Encoder(batch_norm=True, last_map="map"), "teacher": teacher, "choice": choice}
    return RepFusion(**{**fields, "teacher_shape": (16, 16, 1), **changes})


def large_batch(seed=0):
    """The batch, at twice the size: a policy needs 16 pixels a side."""
    whole = batch(seed=seed)
    return {**whole, "source": whole["source"].repeat(2, axis=1).repeat(2, axis=2)}


def large_state(key, method):
    """What training on large batches starts from."""
    return create(method, optimizer(), key, spec(large_batch()))


def supervised(encoder=None) -> Supervised:
    """Two labels of the batch, of 2 and 3 classes."""
    return Supervised(encoder=encoder or Encoder(batch_norm=True), classes=(2, 3))


def dense(task, **changes) -> Dense:
    """A head on the tiny encoder's map: 3 classes, or 2 points in maps of 4 x 4."""
    encoder, size = Encoder(batch_norm=True, last_map="map"), {"width": 8, "stride": 2}
    if task == "segmentation":
        return Segmentation(**{"encoder": encoder, "head": SegmentationHead(classes=3, **size), **changes})
    return Landmarks(**{"encoder": encoder, "head": HeatMapHead(points=2, **size), "sigma": 1.0, **changes})


def regressor(kind, **changes):
    """A regressor or an autoencoder."""
    return kind(**{"encoder": Encoder(), "denoiser": Denoiser(), "schedule": Schedule(), **changes})


def soda(**changes) -> SODA:
    """A SODA of the tiny networks."""
    fields = {"encoder": Encoder(), "denoiser": Denoiser(), "schedule": Schedule()}
    return SODA(**{**fields, **changes})


@dataclass(frozen=True, kw_only=True)
class TwoSources(SODA):
    """A SODA that trains on two sources: the batch's, and its mirror image taken by the target's camera."""

    def loss(self, variables, batch, keys, train=True):
        return super().loss(variables, two_sources(batch), keys, train)


def two_sources(batch):
    """`batch` with two sources of each example."""
    source, cameras = batch["source"], (batch["source_camera"], batch["target_camera"])
    both = {"source": jnp.stack([source, source[:, :, ::-1]], 1), "source_camera": jnp.stack(cameras, 1)}
    return {**batch, **both}


def with_sources(kind=SODA, **changes):
    """A SODA whose encoder sees rays and whose denoiser looks at the sources."""
    networks = {"encoder": Encoder(last_map="map"), "denoiser": Denoiser(channels=1), "schedule": Schedule()}
    more = {"rays": Rays(scale=2.0), "source_rays": True, "lens": (1.5, 1.2, 0.4, 0.6)}
    return kind(**{**networks, **more, "cross_attention": True, **changes})


def prior(**changes) -> LatentPrior:
    """A prior over the latents of the tiny encoder."""
    fields = {"encoder": Encoder(batch_norm=True), "network": LatentMLP(layers=3, width=8, time_width=8)}
    return LatentPrior(**{**fields, "schedule": Schedule(name="constant"), **changes})


def joint_prior() -> JointPrior:
    """A prior that is trained along."""
    network = LatentMLP(layers=3, width=8, time_width=8)
    return JointPrior(weight=0.1, network=network, schedule=Schedule(name="constant"), loss_kind="l2")


def batch(size=16, channels=1, seed=0):
    """Two views of blobs: the target is the source moved by one pixel; and cameras, for those who look at them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 2, 2, channels)).repeat(4, axis=1).repeat(4, axis=2)
    return (
        cameras(size, seed)
        | truth(images, seed)
        | {
            "source": jnp.asarray(images, jnp.uint8),
            "target": jnp.asarray(np.roll(images, 1, axis=2), jnp.uint8),
            "index": jnp.arange(size, dtype=jnp.int32),
            "labels": jnp.arange(size, dtype=jnp.int32)[:, None] % jnp.array([[2, 3]]),
        }
    )


def truth(images, seed=0):
    """For dense tasks: dark, grey and bright pixels, some unknown; the darkest and the brightest blob, if labelled."""
    rng, grey = np.random.default_rng([seed, 2]), images.mean(-1)
    mask = np.where(rng.random(grey.shape) < 0.1, 255, np.digitize(grey, [85, 170]))
    blobs = grey[:, 1::4, 1::4].reshape(len(grey), -1)
    ends = np.stack([blobs.argmin(1), blobs.argmax(1)], 1)
    points = np.stack([ends % 2, ends // 2], -1) * 4 + 1.5
    known = {"mask": mask.astype(np.uint8), "points": points.astype(np.float32)}
    return jax.tree.map(jnp.asarray, known | {"seen": rng.integers(0, 3, ends.shape).astype(np.int32)})


def cameras(size=16, seed=0):
    """Two cameras an example, anywhere, looking anywhere."""
    rng = np.random.default_rng([seed, 1])
    matrices = np.tile(np.eye(4), (2, size, 1, 1))
    matrices[..., :3, :3] = Rotation.random(2 * size, rng).as_matrix().reshape(2, size, 3, 3)
    matrices[..., :3, 3] = rng.normal(size=(2, size, 3))
    intrinsics = np.tile([[1.5, 0.1, 0.4], [0, 1.2, 0.6], [0, 0, 1]], (size, 1, 1))
    names = ("source_camera", "target_camera", "intrinsics")
    return {name: jnp.asarray(x, jnp.float32) for name, x in zip(names, (*matrices, intrinsics), strict=True)}


def spec(of):
    """The spec of a batch."""
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in of.items()}


@functools.cache
def variables(method):
    """Variables of the shapes of `init`, drawn by numpy, which spares each test the compilation of `init`."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return jnp.asarray(
                rng.normal(size=leaf.shape) * leaf.size**-0.5 * leaf.shape[-1] ** 0.5, jnp.float32
            )
        fill = jnp.ones if name in ("scale", "var", "covariance") else jnp.zeros
        return fill(leaf.shape, leaf.dtype)

    abstract = jax.eval_shape(lambda key: method.init(key, spec(batch())), jax.random.key(0))
    return jax.tree.map_with_path(draw, abstract)


def optimizer(**changes):
    """AdamW at a rate that tiny networks like."""
    return make_optimizer(
        OptimizerConfig(**{"learning_rate": 3e-3, "total_images": 1600, "batch": 16, **changes})
    )


def create_state(key, method):
    """What training starts from."""
    return create(method, optimizer(), key, spec(batch()))


def state(method):
    """The state before the first step, from `variables`; of its own, to be donated."""
    abstract = jax.eval_shape(functools.partial(create_state, method=method), jax.random.key(0))
    new, average = (jax.tree.map(jnp.copy, variables(method)) for _ in range(2))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract).replace(
        failed_step=jnp.int32(-1),
        params=new["params"],
        batch_stats=new["batch_stats"],
        ema_params=average["params"],
        ema_batch_stats=moving(average["batch_stats"]),
    )


@functools.cache
def step(method, accumulation=1):
    """The jitted step; it donates its state."""
    return jax.jit(make_step(method, optimizer(), Ema(decay=0.99), accumulation, seed=0), donate_argnums=0)
