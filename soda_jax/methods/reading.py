"""How SODA's encoder looks at sources: clean or noised, with or without their rays, one of an example or several.

    z      = mean over sources of E([x', rays])                                                          (1)

The context is the encoder's last map of every source, as tokens side by side, for a denoiser that attends to it.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from soda_jax.methods.base import encoder_variables, to_float
from soda_jax.nn.attention import Context
from soda_jax.nn.rays import Rays, alone
from soda_jax.types import Batch, Bytes, Features, Image, Tree


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The encoder, and what it is shown. ValueError where it is to see rays and there are none.

    encoder: `(images, train) -> (z [b, s*d], features)`, with a field `latent_dim`; for cross-attention with a
        property `last_map`, the name of the feature that the denoiser attends to.
    rays: of the target, which the denoiser sees beside xt; None: it is not told the view, and needs no cameras.
    source_rays: whether the encoder sees those of the source.
    lens: fx, fy, cx, cy, in sides of the image, of sources that come without cameras; None: they are refused.
    cross_attention: whether the denoiser attends to the sources.
    """

    encoder: nn.Module
    rays: Rays | None = None
    source_rays: bool = False
    lens: tuple[float, float, float, float] | None = None
    cross_attention: bool = False

    def __post_init__(self):
        if self.source_rays and not self.rays:
            raise ValueError("model.source_rays=True needs to know which rays: set model.rays")
        if self.source_rays and self.rays.frame != "source":
            raise ValueError(
                "model.source_rays=True: an image that is encoded by itself has no place in the world: set "
                "model.ray_frame='source'"
            )

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """Every named feature of the encoder in eval mode, each image by itself; z is flat `[b, s*d]`."""
        seen = self.seen(to_float(images)[:, None], None)[:, 0]
        z, features = self.encoder.apply(encoder_variables(variables), seen, train=False)
        return {**features, "z": z}

    def look(
        self, variables: Tree, source: Float[Array, "b *v h w c"], cameras: Batch | None, train: bool
    ) -> tuple[Float[Array, "b n"], Context | None, Tree]:
        """z (1) and the context, and the statistics after this batch (as they were when not training)."""
        seen = self.seen(source if source.ndim == 5 else source[:, None], cameras)
        b, v = seen.shape[:2]
        images, mutable = seen.reshape(b * v, *seen.shape[2:]), ["batch_stats"] if train else []
        (z, features), new = self.encoder.apply(
            encoder_variables(variables), images, train=train, mutable=mutable
        )
        moved = {"encoder": new["batch_stats"]} if "batch_stats" in new else {}
        context = self.tokens(features, v) if self.cross_attention else None
        return jnp.mean(z.reshape(b, v, -1), axis=1), context, {**variables["batch_stats"], **moved}

    def seen(self, source: Float[Array, "b v h w c"], cameras: Batch | None) -> Float[Array, "b v h w c2"]:
        """The sources as the encoder sees them: beside their rays, if it does."""
        if not self.source_rays:
            return source
        b, v, height, width = source.shape[:4]
        rays = self.rays.of_sources(self.alone(b) if cameras is None else cameras, height, width)
        if rays.shape[1] != v:
            raise ValueError(
                f"model.source_rays: found {v} sources of an example, and {rays.shape[1]} cameras"
            )
        return jnp.concatenate([source, rays], -1)

    def alone(self, count: int) -> Batch:
        """Cameras of images that come without. Raises ValueError where their lens is not known."""
        if self.lens is None:
            raise ValueError(
                "model.source_rays=True: the encoder sees rays, and these images come without cameras: set "
                "model.source_lens to their fx, fy, cx, cy, in sides of the image"
            )
        return alone(self.lens, count)

    def tokens(self, features: Features, sources: int) -> Context:
        """The last map of so many sources of each example, side by side."""
        found = features[self.encoder.last_map]
        return found.reshape(found.shape[0] // sources, -1, found.shape[-1])


def layer_names(encoder: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The encoder's layers in the order in which they compute, for images of this shape [h, w, c]."""
    names: list[str] = []

    def look(key: Key[Array, ""]) -> Tree:
        made = encoder.init(key, jnp.zeros((1, *shape)), train=False)
        names.extend(made["params"])  # in the order of their making, which a transformation would forget
        return made

    jax.eval_shape(look, jax.random.key(0))
    return names
