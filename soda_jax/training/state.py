"""The whole state of training: one pytree of arrays, donated, sharded and saved as one."""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Key

from soda_jax.methods.base import BatchSpec, Method, fixed, moving
from soda_jax.types import Tree


@struct.dataclass
class TrainState:
    """All that a step reads and writes. Nothing random is kept: draws follow from the seed and the step."""

    step: Tree  # int32 []: updates done
    failed_step: Tree  # int32 []: -1, or the first step whose loss or gradient was not finite
    params: Tree  # {"encoder": ..., "denoiser": ...}, float32
    batch_stats: Tree  # {"encoder": ...} or {}
    ema_params: Tree  # like params
    ema_batch_stats: Tree  # like batch_stats, without what is frozen
    opt_state: Tree  # optax's


def create(
    method: Method, optimizer: optax.GradientTransformation, key: Key[Array, ""], spec: BatchSpec
) -> TrainState:
    """The state before the first step; call it under `jit` with `out_shardings` to make only local shards."""
    fresh = method.init(key, spec)
    params, batch_stats = fresh["params"], fresh["batch_stats"]
    return TrainState(
        step=jnp.int32(0),
        failed_step=jnp.int32(-1),
        params=params,
        batch_stats=batch_stats,
        ema_params=jax.tree.map(jnp.copy, params),  # copies: a donated buffer may appear once only
        ema_batch_stats=jax.tree.map(jnp.copy, moving(batch_stats)),
        opt_state=optimizer.init(params),
    )


def variables(state: TrainState) -> Tree:
    """The variables that are being trained."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def ema_variables(state: TrainState) -> Tree:
    """The averaged variables: what is probed, sampled from and exported."""
    return {"params": state.ema_params, "batch_stats": {**state.ema_batch_stats, **fixed(state.batch_stats)}}
