"""A judge of pictures: a small convolutional network that reads every label off the pixels, trained on real images.

It never sees z, and so can say whether an edited picture shows what it was edited to show. A linear head on z could
not: edits made along its own weights would please it whatever the picture looks like.

    L = sum_labels mean_i CE(f_label(x_i), y_i)                               (1)  Adam, cosine rate, random shifts
"""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt8

from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_rows, put_whole, replicated
from soda_jax.types import Batch, Tree

SIDE = 32  # pixels that images are shrunk to: enough for what can be told at a glance
SHIFT = 2  # pixels, at most, by which training images are moved
ROWS = 512  # pictures that are judged at once
Say = Callable[[str], None]
Classes = tuple[tuple[str, int], ...]  # (label, number of its classes), ...


class Eye(nn.Module):
    """Strided convolutions, one layer, and a head for each label."""

    classes: Classes
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> dict[str, Array]:
        """Logits [b, k] by label, of images in [-1, 1]."""
        x = images
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (4, 4), strides=2)(x))
        x = nn.relu(nn.Dense(self.widths[-1])(x.reshape(len(x), -1)))
        return {name: nn.Dense(count, name=name)(x) for name, count in self.classes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How long, with how many at a time, how fast; and the channels of the network."""

    images: int = 60_000
    batch: int = 128
    learning_rate: float = 2e-3
    widths: tuple[int, ...] = (32, 64, 128)
    seed: int = 0

    def __post_init__(self):
        if self.images < 1:
            raise ValueError(f"--judge_images must be 1 or more, found {self.images}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """A network that has been trained, and the devices that it works on."""

    network: Eye
    variables: Tree
    mesh: Mesh

    def __call__(self, images: UInt8[np.ndarray, "b h w c"]) -> dict[str, Int[np.ndarray, " b"]]:
        """The class of each picture, by label."""
        look = jax.jit(lambda v, x: _answers(self.network, v, x), out_shardings=replicated(self.mesh))
        variables = put_whole(self.variables, self.mesh)
        parts = []
        for start in range(0, len(images), ROWS):
            rows = np.minimum(np.arange(start, start + min(ROWS, len(images))), len(images) - 1)
            part = put_rows({"image": images[rows]}, self.mesh)["image"]
            parts.append(jax.device_get(look(variables, part)))
        count = min(ROWS, len(images))
        whole = {name: np.concatenate([part[name][:count] for part in parts]) for name in parts[0]}
        return {name: found[: len(images)] for name, found in whole.items()}


def _answers(network: Eye, variables: Tree, images: UInt8[Array, "b h w c"]) -> dict[str, Array]:
    logits = network.apply(variables, shrunk(images))
    return {name: jnp.argmax(x, -1).astype(jnp.int32) for name, x in logits.items()}


def shrunk(images: UInt8[Array, "b h w c"], side: int = SIDE) -> Float[Array, "b _ _ c"]:
    """To [-1, 1], and to `side` pixels, antialiased, where they are larger."""
    scaled = images.astype(jnp.float32) / 127.5 - 1.0
    b, h, w, c = scaled.shape
    shape = (b, min(h, side), min(w, side), c)
    return scaled if shape == scaled.shape else jax.image.resize(scaled, shape, "linear", antialias=True)


def shifted(images: Float[Array, "b h w c"], key: Key[Array, ""]) -> Float[Array, "b h w c"]:
    """Each image moved by up to SHIFT pixels either way; what comes in at an edge repeats it."""
    padded = jnp.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * SHIFT + 1)
    cut = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), images.shape[1:]))
    return cut(padded, corners)


def train_judge(
    images: UInt8[np.ndarray, "b h w c"],
    labels: Mapping[str, Int[np.ndarray, " b"]],
    classes: Mapping[str, int],
    training: Training,
    say: Say = print,
    mesh: Mesh | None = None,
) -> Judge:
    """(1) on real images, every batch cut over the devices of `mesh` (default: all of all processes).

    Raises ValueError where there is no label to read.
    """
    judge = untrained(images.shape[1:], classes, training, mesh)
    steps = -(-training.images // training.batch)
    optimizer = optax.adam(optax.cosine_decay_schedule(training.learning_rate, steps))
    step = jax.jit(_step(judge.network, optimizer, training.seed), donate_argnums=(0, 1))
    rng = np.random.default_rng(training.seed)
    variables = put_whole(judge.variables, judge.mesh)
    state = jax.jit(optimizer.init, out_shardings=replicated(judge.mesh))(variables)
    for number in range(steps):
        rows = rng.integers(0, len(images), training.batch)
        batch = {"image": images[rows], **{name: labels[name][rows] for name in classes}}
        variables, state, loss = step(variables, state, np.int32(number), put_rows(batch, judge.mesh))
        if (number + 1) % max(1, steps // 4) == 0:
            say(f"  judge: {number + 1} of {steps} steps, loss {float(loss):.3f}")
    return dataclasses.replace(judge, variables=jax.device_get(variables))


def untrained(
    shape: tuple[int, ...], classes: Mapping[str, int], training: Training, mesh: Mesh | None = None
) -> Judge:
    """A judge who knows nothing yet, of images of this shape (h, w, c). Raises ValueError where there is no label."""
    if not classes:
        raise ValueError("a judge needs labels to read: the data set has none")
    network = Eye(classes=tuple(classes.items()), widths=training.widths)
    start = jax.eval_shape(shrunk, jax.ShapeDtypeStruct((1, *shape), jnp.uint8))
    variables = jax.jit(network.init)(jax.random.key(training.seed), jnp.zeros(start.shape))
    return Judge(
        network=network, variables=jax.device_get(variables), mesh=make_mesh() if mesh is None else mesh
    )


def _step(network: Eye, optimizer: optax.GradientTransformation, seed: int) -> Callable:
    """(variables, state, number, batch) -> the same after one step of (1), and the loss."""

    def loss_of(variables: Tree, batch: Batch, key: Key[Array, ""]) -> Float[Array, ""]:
        logits = network.apply(variables, shifted(shrunk(batch["image"]), key))
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return sum(jnp.mean(entropy(logits[name], batch[name])) for name, _ in network.classes)

    def step(variables: Tree, state: Tree, number: Int[Array, ""], batch: Batch) -> tuple[Tree, Tree, Array]:
        key = jax.random.fold_in(jax.random.key(seed), number)
        loss, slope = jax.value_and_grad(loss_of)(variables, batch, key)
        update, state = optimizer.update(slope, state, variables)
        return optax.apply_updates(variables, update), state, loss

    return step
