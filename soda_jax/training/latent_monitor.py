"""Does the denoiser listen to z, and how much does z hold?

    use    = L(z shuffled) - L(z)                                                (1)
    rank   = exp(- sum_i p_i ln p_i),  p = eigenvalues of cov(z) / their sum     (2)
    gain_i = L(z without section i) - L(z)                                       (3)

Times and noise are the same in both terms of (1) and (3), so the differences are the latent's alone.

A denoiser that ignores its latent has use 0; a latent that is the same for every image has rank near 1.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from soda_jax.methods.base import LatentMethod, Method, Scalar
from soda_jax.training.step import microbatches
from soda_jax.types import Batch, Keys, Latent, Tree

DEAD = 0.01  # a dimension is dead when its deviation is below this share of the root mean square deviation
LEAST_USE = 0.001  # share of the loss that z must explain


def monitor(method: Method, variables: Tree, batch: Batch, keys: Keys, parts: int = 1) -> dict[str, Array]:
    """Scalars about z on one batch, in eval mode; jit it. Costs 4 + sections passes of the denoiser.

    The networks see the batch in `parts` parts, one after another: that bounds the memory, and changes no number.
    loss_true, loss_shuffled, use (1), use_error (its standard error), gradient_norm (of an example's loss at
    its z, averaged), effective_rank (2), dead_dims, latent_dim, gain/00, gain/01, ... (3). Of a method without a
    denoiser that z guides: what can be said of z alone.
    """
    if not isinstance(method, LatentMethod):
        z = in_parts(lambda rows: method.encode(variables, rows["source"])["z"], batch, parts)
        return latent_statistics(z[:, None])

    def some_losses(rows: tuple) -> Float[Array, " b"]:
        return method.loss_given_latent(variables, *rows, train=False)

    def some_norms(rows: tuple) -> Float[Array, " b"]:
        gradient = jax.grad(lambda z: jnp.sum(some_losses((z, *rows[1:]))))(rows[0])
        return jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2)))

    def losses(z: Latent) -> Float[Array, " b"]:
        return in_parts(some_losses, (z, batch, keys), parts)

    z = in_parts(lambda rows: method.latent(variables, rows["source"], rows), batch, parts)
    true, shuffled = losses(z), losses(jnp.roll(z, 1, axis=0))
    return {
        "loss_true": jnp.mean(true),
        "loss_shuffled": jnp.mean(shuffled),
        "use": jnp.mean(shuffled - true),
        "use_error": jnp.std(shuffled - true) / jnp.sqrt(jnp.float32(true.size)),
        "gradient_norm": jnp.mean(in_parts(some_norms, (z, batch, keys), parts)),
        **latent_statistics(z),
        **section_gains(losses, z, jnp.mean(true)),
    }


def in_parts(function: Callable[[Tree], Array], rows: Tree, parts: int) -> Array:
    """`function` of all rows, every parts-th of them at a time, so that rows stay on their devices."""
    if parts == 1:
        return function(rows)
    found = jnp.swapaxes(jax.lax.map(function, microbatches(rows, parts)), 0, 1)
    return found.reshape(-1, *found.shape[2:])


def latent_statistics(z: Latent) -> dict[str, Array]:
    """What can be said of the codes alone."""
    flat = z.reshape(z.shape[0], -1)
    return {
        "effective_rank": effective_rank(flat),
        "dead_dims": jnp.sum(dead_dims(flat)),
        "latent_dim": jnp.int32(flat.shape[1]),
    }


def effective_rank(z: Float[Array, "b n"], power: int = 2) -> Scalar:
    """(2), in 1..n; 0 when z does not vary at all.

    power 1: p of the deviations in place of the variances, which is larger (Roy and Vetterli, EUSIPCO 2007).
    """
    centred = z - jnp.mean(z, axis=0, keepdims=True)
    spectrum = jnp.linalg.svd(centred, compute_uv=False) ** power
    total = jnp.sum(spectrum)
    p = spectrum / jnp.where(total > 0, total, 1.0)
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0))
    return jnp.where(total > 0, jnp.exp(entropy), 0.0)


def dead_dims(z: Float[Array, "b n"]) -> Bool[Array, " n"]:
    """True where a dimension hardly varies beside the others."""
    deviation = jnp.std(z, axis=0)
    return deviation <= DEAD * jnp.sqrt(jnp.mean(jnp.square(deviation)))


def section_gains(losses: Callable[[Latent], Array], z: Latent, true: Scalar) -> dict[str, Scalar]:
    """(3) under the names gain/00, gain/01, ..."""
    sections = z.shape[1]

    def gain(i: Int[Array, ""]) -> Scalar:
        keep = jnp.arange(sections) != i
        return jnp.mean(losses(jnp.where(keep[None, :, None], z, 0.0))) - true

    gains = jax.lax.map(gain, jnp.arange(sections))
    return {f"gain/{i:02d}": gains[i] for i in range(sections)}


def warning(values: Mapping[str, int | float | Array]) -> str | None:
    """What is wrong with the latent, in plain words; None when nothing is."""
    v = {name: float(value) for name, value in values.items()}
    if "use" in v and v["use"] <= max(2 * v["use_error"], LEAST_USE * v["loss_true"]):
        return (
            f"The denoiser ignores the latent: with the z of another image its loss is "
            f"{v['loss_shuffled']:.4f} instead of {v['loss_true']:.4f}. Normal in the first steps; if it "
            "lasts, try diffusion.prediction=x0 with diffusion.loss_in=x0, closer views, or a lower rate."
        )
    if v["effective_rank"] < 2:
        return (
            f"The latent has collapsed: its effective rank is {v['effective_rank']:.1f} of "
            f"{v['latent_dim']:.0f}. Lower optimizer.learning_rate, or make the views share more "
            "than their colour (data.crop_scale)."
        )
    if v["dead_dims"] > v["latent_dim"] / 2:
        return (
            f"{v['dead_dims']:.0f} of {v['latent_dim']:.0f} dimensions of the latent never vary. "
            "A smaller model.latent_dim would hold as much."
        )
    return None
