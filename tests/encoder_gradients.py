"""Gradients of an encoder on one device and on eight: BatchNorm looks at the whole batch wherever it lies."""

import jax
import jax.numpy as jnp
import numpy as np

from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_rows, replicated
from tests.arrays import random_variables


def assert_same_on_devices(net, images):
    """Gradients and new statistics, not steps of Adam: a bias that the next BatchNorm removes has a gradient that is
    rounding alone."""
    mesh, variables = make_mesh(2, 4), random_variables(net, images[:1])

    def loss(params, images):
        (z, _), new = net.apply(variables | {"params": params}, images, True, mutable=["batch_stats"])
        return jnp.mean(jnp.square(z)), new

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    expected = gradient(variables["params"], images)
    cut = put_rows({"images": images}, mesh)["images"]
    assert len(cut.sharding.device_set) == 8
    found = gradient(jax.device_put(variables["params"], replicated(mesh)), cut)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale), found, expected)
