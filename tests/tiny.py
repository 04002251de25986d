"""Networks small enough that a test compiles them in a second, behind the seams of the real ones."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.soda import SODA
from soda_jax.training.optimizer import OptimizerConfig, make_optimizer
from soda_jax.training.state import create
from soda_jax.training.step import make_step

SIZE = 8


class Encoder(nn.Module):
    """One convolution, a norm (BatchNorm or none), one layer."""

    latent_dim: int = 6
    batch_norm: bool = False

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=not self.batch_norm)(images)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        pooled = jnp.mean(nn.silu(x), axis=(1, 2))
        z = nn.Dense(self.latent_dim)(pooled)
        return z, {"pooled": pooled, "z": z}


class Denoiser(nn.Module):
    """Two convolutions; section i of z shifts the i-th third of the channels."""

    sections: int = 3
    listens: bool = True
    dropout: float = 0.0
    channels: int = 0  # of the prediction; 0: as many as xt has

    @nn.compact
    def __call__(self, xt, t, z, train=False):
        shifts = nn.vmap(
            nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=1, out_axes=1
        )
        shift = shifts(4)(nn.silu(z)).reshape(z.shape[0], -1)
        shift = shift if self.listens else jnp.zeros_like(shift)
        x = nn.Conv(12, (3, 3))(xt) + shift[:, None, None] + nn.Dense(12)(t[:, None])[:, None, None]
        x = nn.Dropout(self.dropout)(nn.silu(x), deterministic=not train)
        return nn.Conv(self.channels or xt.shape[-1], (3, 3))(x), {}


def soda(**changes) -> SODA:
    """A SODA of the tiny networks."""
    fields = {"encoder": Encoder(), "denoiser": Denoiser(), "schedule": Schedule()}
    return SODA(**{**fields, **changes})


def batch(size=16, channels=1, seed=0):
    """Two views of blobs: the target is the source moved by one pixel; and cameras, for those who look at them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 2, 2, channels)).repeat(4, axis=1).repeat(4, axis=2)
    return cameras(size, seed) | {
        "source": jnp.asarray(images, jnp.uint8),
        "target": jnp.asarray(np.roll(images, 1, axis=2), jnp.uint8),
        "index": jnp.arange(size, dtype=jnp.int32),
    }


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
        return jnp.ones(leaf.shape) if name in ("scale", "var") else jnp.zeros(leaf.shape)

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
        ema_batch_stats=average["batch_stats"],
    )


@functools.cache
def step(method, accumulation=1):
    """The jitted step; it donates its state."""
    return jax.jit(make_step(method, optimizer(), 0.99, accumulation, seed=0), donate_argnums=0)
