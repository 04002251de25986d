"""The perceptron over latents against its equations, written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.embed import time_embedding
from soda_jax.nn.latent_mlp import LatentMLP


def silu(x):
    return x / (1 + np.exp(-x))


def by_hand(params, zt, t):
    """(1) to (4)."""

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def norm(name, x):
        centred = x - x.mean(1, keepdims=True)
        return (
            centred / np.sqrt(centred.var(1, keepdims=True) + 1e-6) * params[name]["scale"]
            + params[name]["bias"]
        )

    time = {f"time_{name}": values for name, values in params["time"].items()}
    params = {**params, **time}
    embedded = np.asarray(time_embedding(jnp.asarray(t), 8))
    embedded = silu(dense("time_dense_1", silu(dense("time_dense_0", embedded))))
    h = zt
    for i in range(2):
        u = (1 + dense(f"scale_{i}", embedded)) * dense(f"layer_{i}", h)
        h = np.concatenate([silu(norm(f"norm_{i}", u)), zt], 1)
    return dense("out", h)


def test_it_computes_its_equations():
    network, rng = LatentMLP(layers=3, width=7, time_width=8), np.random.default_rng(0)
    zt, t = rng.normal(size=(5, 4)).astype(np.float32), np.linspace(0.1, 1, 5, dtype=np.float32)
    abstract = jax.eval_shape(network.init, jax.random.key(0), zt, t)["params"]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.3, abstract)
    found = network.apply({"params": params}, jnp.asarray(zt), jnp.asarray(t))
    np.testing.assert_allclose(found, by_hand(params, zt, t), rtol=2e-4, atol=2e-5)


def test_sizes_that_are_none_name_their_key():
    with pytest.raises(ValueError, match=r"prior\.layers must be 2 or more, found 1"):
        LatentMLP(layers=1)
    with pytest.raises(ValueError, match=r"prior\.width must be 1 or more, found 0"):
        LatentMLP(width=0)
