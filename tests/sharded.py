"""Training of tiny methods on any mesh, their arrays cut though they are small."""

import functools

import jax

from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training.optimizer import Ema
from soda_jax.training.step import jit_step
from tests import tiny

SMALLEST = 100  # bytes: kernels are cut, vectors stay whole, as in large networks
MESHES = {
    "2 data": (2, 1),
    "8 data": (8, 1),
    "2 fsdp": (1, 2),
    "8 fsdp": (1, 8),
    "2 x 4": (2, 4),
    "4 x 2": (4, 2),
}


def shardings(method, mesh):
    """Of a method's state."""
    abstract = jax.eval_shape(functools.partial(tiny.create_state, method=method), jax.random.key(0))
    return abstract, sharding.state_shardings(abstract, mesh, smallest=SMALLEST)


def program(method, mesh, accumulation=1, seed=0):
    """The jitted step, and where its state lies."""
    _, placed = shardings(method, mesh)
    return jit_step(method, tiny.optimizer(), Ema(decay=0.99), accumulation, seed, placed), placed


def compiled_text(method, mesh, batch, accumulation=1):
    """HLO of the step for batches of this size."""
    abstract, placed = shardings(method, mesh)
    step, _ = program(method, mesh, accumulation)
    rows = sharding.abstract_batch(tiny.spec(tiny.batch(batch)), mesh)
    return step.lower(sharding.with_shardings(abstract, placed), rows).compile().as_text()


def ten_steps(method, data, fsdp, accumulation=2):
    """Losses of ten steps, and the state after them, on the host."""
    mesh = make_mesh(data, fsdp)
    step, placed = program(method, mesh, accumulation)
    state, losses = jax.device_put(tiny.state(method), placed), []
    for i in range(10):
        batch = tiny.batch(seed=i)
        state, metrics = step(state, sharding.put_batch(batch, tiny.spec(batch), mesh))
        losses.append(metrics["loss"])
    assert len(losses[0].sharding.device_set) == data * fsdp
    assert jax.tree.map(lambda x: x.sharding, state) == placed
    return jax.device_get((losses, state))
