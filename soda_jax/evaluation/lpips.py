"""How near two images look: distances between the activations of a network (LPIPS, arXiv 1801.03924).

    d(a, b) = sum_l mean over places sum_c w_lc (a_lc / |a_l| - b_lc / |b_l|)^2                                    (1)

a_l are the activations of stage l, |.| their length over the channels, w_l the weights of that stage. It is LPIPS with
the networks and weights that were published with it, which are read from files; with any other network, and all
w_lc = 1 / channels, it is a feature distance in that network's space, and is never called LPIPS.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from soda_jax.evaluation.feature_spaces import in_colour, random_network
from soda_jax.nn import perceptual
from soda_jax.nn.torch_weights import read, take
from soda_jax.types import Image, Tree

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1], per channel
TINY = 1e-10  # beside a length
Activations = Sequence[Float[Array, "_ _ _ _"]]  # [b, h, w, c], each of its own size


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairDistance:
    """(1), pure: `distance(a, b)` of images [b, h, w, 3] (or grey) in [-1, 1], one number a pair.

    name: what it is called wherever it is shown: "lpips_vgg", "feature_distance_random_resnet18", ...
    activations: (variables, images in [-1, 1]) -> [b, h, w, c] of each stage.
    heads: w_l of each stage [c]; None: 1 / c.
    """

    name: str
    activations: Callable[[Tree, Image], Activations]
    variables: Tree
    heads: tuple[np.ndarray, ...] | None = None

    def __call__(self, a: Image, b: Image) -> Float[Array, " b"]:
        """(1); 0 for equal images."""
        return _distance(self.activations, self.variables, self.heads, a, b)


@partial(jax.jit, static_argnums=0)
def _distance(
    activations: Callable[[Tree, Image], Activations],
    variables: Tree,
    heads: tuple | None,
    a: Image,
    b: Image,
) -> Float[Array, " b"]:
    with jax.default_matmul_precision("highest"):  # accelerators would round to fewer digits
        both = activations(variables, jnp.concatenate([a, b]))
    heads = heads or tuple(jnp.full(x.shape[-1], 1 / x.shape[-1]) for x in both)
    return jnp.sum(jnp.stack([stage(x, w) for x, w in zip(both, heads, strict=True)]), axis=0)


def stage(x: Image, weights: Float[Array, " c"]) -> Float[Array, " m"]:
    """One summand of (1), of the activations of a and b one after the other."""
    a, b = jnp.split(x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + TINY), 2)
    return jnp.mean(jnp.square(a - b) @ weights, axis=(1, 2))


def lpips(kind: str, network: str | Path, heads: str | Path) -> PairDistance:
    """LPIPS of version 0.1.

    Args:
      kind: "vgg" or "alex".
      network: file of torchvision's vgg16 or alexnet.
      heads: file of its weights w_l ("lin0.model.1.weight", ...).

    Raises:
      FileNotFoundError, ValueError: a file is missing, damaged, or not of that network; the message names the key.
    """
    variables = perceptual.converted(kind, read(network), network)
    arrays, widths = read(heads), [layers[-1][1] for layers in perceptual.STAGES[kind]]

    def activations(variables: Tree, images: Image) -> Activations:
        return perceptual.Stages(kind).apply(variables, scaled(images))

    return PairDistance(
        name=f"lpips_{kind}",
        activations=activations,
        variables=variables,
        heads=tuple(head(arrays, number, width, heads) for number, width in enumerate(widths)),
    )


def random_resnet18() -> PairDistance:
    """The feature distance in the four stages of the untrained network of `feature_spaces.random_resnet18`."""
    module, variables = random_network()

    def activations(variables: Tree, images: Image) -> Activations:
        features = module.apply(variables, in_colour(images), train=False)[1]
        return [features[f"stage{number}/block2"] for number in (1, 2, 3, 4)]

    return PairDistance(name="feature_distance_random_resnet18", activations=activations, variables=variables)


def head(
    arrays: Mapping[str, np.ndarray], number: int, width: int, path: str | Path
) -> Float[np.ndarray, " c"]:
    """w_l. ValueError where it is missing or of another network."""
    return take(arrays, f"lin{number}.model.1.weight", (1, width, 1, 1), path).reshape(width)


def scaled(images: Image) -> Image:
    """What the networks take, of images in [-1, 1]; grey ones are repeated."""
    return (in_colour(images) - jnp.asarray(SHIFT)[None, None, None]) / jnp.asarray(SCALE)[None, None, None]
