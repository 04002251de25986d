"""Numbers for the networks' tests, drawn by numpy: nothing is compiled for them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

SPREAD = {"bias": (0.0, 0.3), "mean": (0.0, 0.3), "scale": (1.0, 0.3), "var": (1.0, 0.1)}  # centre, deviation


def normal(*shape, seed=0):
    """Standard normal float32 numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(net, *inputs, seed=0, **static):
    """Variables of `net` in which nothing is at its special start: no zero kernel, no unit scale."""
    abstract = jax.eval_shape(partial(net.init, **static), jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)
    return jax.tree.map_with_path(lambda path, leaf: draw(rng, path[-1].key, leaf.shape), abstract)


def draw(rng, name, shape):
    """One leaf: kernels keep the variance of their input, the rest is spread about its usual start."""
    fan_in = max(int(np.prod(shape[:-1])), 1)
    centre, deviation = SPREAD[name] if name in SPREAD else (0.0, fan_in**-0.5)
    return jnp.asarray(centre + deviation * rng.normal(size=shape), jnp.float32)
