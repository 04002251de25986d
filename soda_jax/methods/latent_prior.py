"""A diffusion model of SODA's latents, for images from nothing (the latent DDIM of Diff-AE, arXiv 2111.15640).

The encoder is frozen; mean m and covariance C of its z over the training images are measured before the first step.

    z0   = (E(x) - m) / sqrt(diag C)                                       (1)  standardised latent of an image
    zt   = alpha(t) z0 + sigma(t) eps,  eps ~ N(0, I)                      (2)
    L    = mean | eps - D(zt, t) |   or its square; D may predict x0 = z0 or v instead          (3)
    z    = m + sqrt(diag C) z0^,  z0^ sampled from noise with D            (4)  what the SODA run decodes to an image
    z    ~ N(m, C)                                                         (5)  the baseline: no more than a Gaussian

The encoder, m and C are the collection `frozen` of the variables: they lie in the state, so that checkpoints have
all that sampling z takes, but no step changes them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from soda_jax.diffusion.process import convert
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.diffusion.samplers import sample
from soda_jax.methods.base import FROZEN, BatchSpec, Scalar, to_float
from soda_jax.methods.latent_denoiser import Flat, LatentDenoiser, as_pixels
from soda_jax.types import Batch, Bytes, Features, Image, Keys, Tree

VARIANCE_FLOOR = 1e-8  # a dimension that never varies is left as it is


@dataclass(frozen=True, kw_only=True)
class LatentPrior(LatentDenoiser):
    """The prior over z, whose fields are those of `LatentDenoiser`.

    encoder: `(images, train) -> (z [b, n], features)`, with a field `latent_dim`; never trained.
    """

    encoder: nn.Module

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables; the encoder is an untrained one, and z counts as N(0, I), till it takes them over."""
        encoder_key, prior_key = jax.random.split(key)
        n = self.encoder.latent_dim
        encoder = self.encoder.init(encoder_key, jnp.zeros((1, *spec["source"].shape[1:])), train=False)
        prior = self.network.init(prior_key, jnp.zeros((1, n)), jnp.zeros(1))
        frozen = {"encoder": encoder, "latent": {"mean": jnp.zeros(n), "covariance": jnp.eye(n)}}
        return {"params": {"prior": prior["params"]}, "batch_stats": {FROZEN: frozen}}

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(3), averaged; nothing in it depends on `train`."""
        del train
        z0 = self.standardised(variables, self.encode(variables, batch["source"])["z"])
        loss = jnp.mean(self.losses(variables["params"]["prior"], z0, keys))
        metrics = {"z_square": jnp.mean(jnp.square(z0))}
        return loss, {"metrics": metrics, "batch_stats": variables["batch_stats"]}

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """Every named feature of the frozen encoder; z is flat `[b, n]`."""
        z, features = self.encoder.apply(frozen(variables)["encoder"], to_float(images), train=False)
        return {**features, "z": z}

    def standardised(self, variables: Tree, z: Flat) -> Flat:
        """(1)"""
        latent = frozen(variables)["latent"]
        return (z - latent["mean"][None]) / deviation(latent)[None]

    def denoise(self, variables: Tree, zt: Image, t: Float[Array, " b"]) -> Image:
        """eps of latents that stand as images of one pixel, which is how samplers know them."""
        out = self.predict(variables["params"]["prior"], zt, t)
        return convert(out, self.prediction, "eps", zt, self.schedule.logsnr(t))

    def generate(
        self,
        variables: Tree,
        noise: Flat,
        sampler: Sampler,
        key: Key[Array, ""],
        on_step: Callable | None = None,
    ) -> Flat:
        """(4): latents from standard normal noise. Estimates are never clipped: z has no bounds."""
        free = replace(sampler, clip_x0=False)

        def denoise(zt: Image, t: Float[Array, " b"]) -> Image:
            return self.denoise(variables, zt, t)

        latent = frozen(variables)["latent"]
        z0 = sample(denoise, self.schedule, free, as_pixels(noise), key, on_step)[:, 0, 0]
        return latent["mean"][None] + deviation(latent)[None] * z0

    def gaussian(self, variables: Tree, noise: Flat) -> Flat:
        """(5), by the symmetric root of C, which also takes a covariance without full rank."""
        latent = frozen(variables)["latent"]
        values, vectors = jnp.linalg.eigh(latent["covariance"])
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]) @ vectors.T
        return latent["mean"][None] + noise @ root


def frozen(variables: Tree) -> Tree:
    """{"encoder": its variables, "latent": {"mean" [n], "covariance" [n, n]}}"""
    return variables["batch_stats"][FROZEN]


def deviation(latent: Tree) -> Float[Array, " n"]:
    """Of each dimension of z; 1 where it never varies."""
    variance = jnp.diagonal(latent["covariance"])
    return jnp.where(variance > VARIANCE_FLOOR, jnp.sqrt(jnp.maximum(variance, VARIANCE_FLOOR)), 1.0)
