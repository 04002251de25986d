"""One training step: a pure function of (state, batch), to be jitted over the mesh with the state donated.

Draws follow from (seed, step, example's place in the global batch), so neither the number of devices nor
accumulation changes them. Accumulation is exact for networks without BatchNorm and dropout; BatchNorm
normalises each microbatch by its own statistics (the running averages are chained); dropout draws for each.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from soda_jax.methods.base import FollowingMethod, Method, moving
from soda_jax.parallel.sharding import gather
from soda_jax.training.optimizer import Ema, ema_update
from soda_jax.training.state import TrainState
from soda_jax.types import Batch, Keys, Tree

TRAIN = 0  # the stream of a step's key that the loss draws from
Step = Callable[[TrainState, Batch], tuple[TrainState, dict]]


def jit_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    ema: Ema,
    accumulation: int,
    seed: int,
    shardings: Tree,
) -> Callable:
    """`make_step` under `jit`, its state donated; shardings: of the TrainState, all on one mesh."""
    step = make_step(method, optimizer, ema, accumulation, seed, shardings.params)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    ema: Ema,
    accumulation: int,
    seed: int,
    placed: Tree | None = None,
) -> Step:
    """`(state, batch) -> (state, metrics)`; metrics: scalars loss, grad_norm, finite and the method's own.

    accumulation: microbatches a step; it must divide the global batch.
    placed: NamedShardings of the parameters. Those that are cut are gathered once a step, and their gradients are
    cut like them again; the optimiser and the averages work on the parts. None: nothing is cut.
    A loss or gradient that is not finite changes nothing but `failed_step`, nor does any step after it: the
    state stays what it was before the failing batch, for the host to save.
    """

    if all(place.is_fully_replicated for place in jax.tree.leaves(placed)):
        placed = None

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        keys = step_keys(seed, state.step, batch_size(batch))
        loss, metrics, batch_stats, grads = accumulate(method, state, batch, keys, accumulation, placed)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        update = finite & (state.failed_step < 0)
        metrics = {**metrics, "loss": loss, "grad_norm": norm, "finite": finite}
        # A branch, not a choice leaf by leaf: the donated state is then updated in place (measured on a CPU:
        # half the time, 18 passes over the parameters for 29).
        new = jax.lax.cond(
            update,
            lambda: advance(method, state, grads, batch_stats, optimizer, ema),
            lambda: mark_failed(state, finite),
        )
        return new, metrics

    return step


def step_keys(seed: int, step: Int[Array, ""], examples: int) -> Keys:
    """One key per example of the global batch of this step."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), TRAIN)
    return jax.random.split(key, examples)


def accumulate(
    method: Method, state: TrainState, batch: Batch, keys: Keys, parts: int, placed: Tree | None = None
) -> tuple:
    """Loss, metrics, BatchNorm statistics and gradients of the batch, `parts` microbatches in turn."""
    params = state.params if placed is None else gather(state.params, placed)

    def gradient(*arguments) -> tuple:
        result, grads = jax.value_and_grad(_loss_of_params(method), has_aux=True)(params, *arguments)
        return result, grads if placed is None else jax.lax.with_sharding_constraint(grads, placed)

    if parts == 1:
        (loss, aux), grads = gradient(state.batch_stats, batch, keys)
        return loss, aux["metrics"], aux["batch_stats"], grads

    def add(carry: tuple, part: tuple) -> tuple:
        batch_stats, sums = carry
        (loss, aux), grads = gradient(batch_stats, *part)
        return (aux["batch_stats"], jax.tree.map(jnp.add, sums, (loss, aux["metrics"], grads))), None

    cut = microbatches((batch, keys), parts)
    first = jax.tree.map(lambda x: x[0], cut)
    (loss, aux), grads = jax.eval_shape(gradient, state.batch_stats, *first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, aux["metrics"], grads))
    (batch_stats, sums), _ = jax.lax.scan(add, (state.batch_stats, zeros), cut)
    loss, metrics, grads = jax.tree.map(lambda x: x / parts, sums)
    return loss, metrics, batch_stats, grads


def microbatches(tree: Tree, parts: int) -> Tree:
    """Leading axis `b` to `[parts, b/parts]`: every parts-th row, so that rows stay on their devices.

    Raises ValueError when `parts` does not divide the batch.
    """

    def cut(x):
        if x.shape[0] % parts:
            raise ValueError(
                f"train.accumulation must divide the batch: found {parts} for a batch of {x.shape[0]}"
            )
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)


def advance(
    method: Method,
    state: TrainState,
    grads: Tree,
    batch_stats: Tree,
    optimizer: optax.GradientTransformation,
    ema: Ema,
) -> TrainState:
    """The state after this update."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if isinstance(method, FollowingMethod):
        batch_stats = method.after_step(params, batch_stats)
    d = ema.at(state.step)
    return TrainState(
        step=state.step + 1,
        failed_step=state.failed_step,
        params=params,
        batch_stats=batch_stats,
        ema_params=ema_update(state.ema_params, params, d),
        ema_batch_stats=ema.of_statistics(state.ema_batch_stats, moving(batch_stats), d),
        opt_state=opt_state,
    )


def mark_failed(state: TrainState, finite: jax.Array) -> TrainState:
    """The same state, with the first failing step noted."""
    first = (state.failed_step < 0) & ~finite
    return state.replace(failed_step=jnp.where(first, state.step, state.failed_step))


def batch_size(batch: Batch) -> int:
    """The first axis of a batch's arrays."""
    return jax.tree.leaves(batch)[0].shape[0]


def _loss_of_params(method: Method) -> Callable:
    def loss(params, batch_stats, batch, keys):
        return method.loss({"params": params, "batch_stats": batch_stats}, batch, keys, train=True)

    return loss
