"""What every method is to the rest of the project: three pure functions behind one Protocol.

`variables` is `{"params": {...}, "batch_stats": {...}}`, where `batch_stats` is what a step changes by other ways than
gradients; what no step changes, such as a network that was trained before, is `batch_stats[FROZEN]`, and what steps
change but an average would make no sense of is `batch_stats[UNAVERAGED]`. A batch maps names to arrays whose first axis
is the batch; images in it are uint8 NHWC and become floats in [-1, 1] here, on the device.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from soda_jax.types import Batch, Bytes, Features, Image, Keys, Latent, Tree

BatchSpec = Mapping[str, jax.ShapeDtypeStruct]  # name -> shape and dtype of one global batch
Scalar = Float[Array, ""]
Sources = Float[Array, "b *v h w c"] | UInt8[Array, "b *v h w c"]  # one of each example, or v of them
FROZEN, UNAVERAGED = "frozen", "unaveraged"


@runtime_checkable
class Method(Protocol):
    """What the loop, the probe, the report and the export know of a method."""

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables for batches of this spec."""
        ...

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """The mean loss and `{"metrics": {name: scalar}, "batch_stats": new statistics}`.

        `keys` holds one key per example: the draws of an example do not depend on how the batch is cut.
        """
        ...

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """Named flat features `[b, n]`, without noise or dropout; needs the encoder's variables only."""
        ...


@runtime_checkable
class LatentMethod(Method, Protocol):
    """A method whose denoiser is guided by a latent z: what the latent monitor needs."""

    def latent(self, variables: Tree, source: Sources, cameras: Batch | None = None) -> Latent:
        """z of each source, or of the sources of each example, in eval mode; a batch may be given as cameras."""
        ...

    def loss_given_latent(
        self, variables: Tree, z: Latent, batch: Batch, keys: Keys, train: bool = False
    ) -> Float[Array, " b"]:
        """The loss of each example when the denoiser is given this z, whatever its origin."""
        ...


@runtime_checkable
class FollowingMethod(Method, Protocol):
    """A method some of whose statistics follow the parameters, once a step, however many microbatches it has."""

    def after_step(self, params: Tree, batch_stats: Tree) -> Tree:
        """The statistics after an update that made these parameters."""
        ...


def moving(batch_stats: Tree) -> Tree:
    """What there are averages of."""
    return {name: tree for name, tree in batch_stats.items() if name not in (FROZEN, UNAVERAGED)}


def fixed(batch_stats: Tree) -> Tree:
    """What there are none of; {} for most methods."""
    return {name: tree for name, tree in batch_stats.items() if name in (FROZEN, UNAVERAGED)}


def to_float(images: UInt8[Array, "..."] | Float[Array, "..."]) -> Float[Array, "..."]:
    """0..255 to [-1, 1]; floats count as scaled already."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """[-1, 1] to 0..255, rounded; what lies outside is clipped."""
    return jnp.clip(jnp.round((images + 1.0) * 127.5), 0.0, 255.0).astype(jnp.uint8)


def stream(keys: Keys, number: int) -> Keys:
    """The keys of one kind of draw."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def normal_like(keys: Keys, images: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """N(0, I), each example from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)


def encoder_variables(variables: Tree) -> Tree:
    """What the encoder's `apply` takes; the denoiser's variables may be absent."""
    params = {"params": variables["params"]["encoder"]}
    stats = variables["batch_stats"]
    return {**params, "batch_stats": stats["encoder"]} if "encoder" in stats else params
