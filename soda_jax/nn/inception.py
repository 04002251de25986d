"""Inception-v3 (arXiv 1512.00567) as the Frechet inception distance uses it (arXiv 1706.08500), in eval form.

Its weights of December 2015 are public as a PyTorch file (pt_inception-2015-12-05-...pth, names of torchvision's
Inception3, 1008 classes). The network differs from torchvision's in three places: averages in the blocks leave the
padding out, the last block takes a maximum in place of an average, and BatchNorm has epsilon 0.001.

Images become what TensorFlow 1 made of them: bilinear to 299 x 299, without antialiasing and without half-pixel
centres, then (u - 128) / 128 for u in 0..255.

    y[i] = (1 - f) x[l] + f x[min(l + 1, n - 1)],   l = floor(i n / m),  f = i n / m - l                          (1)

(of n pixels, m are made; along both sides.) Resizing by half-pixel centres, as some do, changes the distance.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.torch_weights import take
from soda_jax.types import Bytes, Features, Image, Tree

SIDE = 299
WIDTH, CLASSES = 2048, 1008
EPSILON = 1e-3  # of BatchNorm
Kernel = tuple[int, int]
Layer = (
    tuple[str, int, Kernel] | tuple[str, int, Kernel, str]
)  # name, features, kernel, "half": to half the size
ONE, THREE = (1, 1), (3, 3)
ROW, COLUMN = (1, 7), (7, 1)


class ConvRelu(nn.Module):
    """relu(convolution + bias): BatchNorm of an eval network is folded into kernel and bias."""

    features: int
    kernel: Kernel = (1, 1)
    stride: int = 1
    same: bool = True  # padded by kernel // 2 on all sides; otherwise not at all

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h2 w2 {self.features}"]:
        padding = [(k // 2, k // 2) for k in self.kernel] if self.same else "VALID"
        return nn.relu(nn.Conv(self.features, self.kernel, self.stride, padding, name="conv")(x))


def halved(x: Image) -> Float[Array, "b h2 w2 c"]:
    """Maximum over 3 x 3 pixels, at every second one."""
    return nn.max_pool(x, (3, 3), (2, 2))


def around(x: Image) -> Image:
    """Mean over 3 x 3 pixels; at the border over those that are there."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def chain(x: Image, *layers: Layer) -> Float[Array, "b h2 w2 c2"]:
    """Convolutions one after the other, as parts of the module that calls this."""
    for name, features, kernel, *half in layers:
        stride, same = (2, False) if half else (1, True)
        x = ConvRelu(features, kernel, stride, same, name=name)(x)
    return x


class BlockA(nn.Module):
    """On 35 x 35 pixels."""

    pooled: int

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h w c2"]:
        double = ("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE), ("branch3x3dbl_3", 96, THREE)
        branches = [
            chain(x, ("branch1x1", 64, ONE)),
            chain(x, ("branch5x5_1", 48, ONE), ("branch5x5_2", 64, (5, 5))),
            chain(x, *double),
            chain(around(x), ("branch_pool", self.pooled, ONE)),
        ]
        return jnp.concatenate(branches, -1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17 pixels."""

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h2 w2 c2"]:
        double = ("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE)
        branches = [
            chain(x, ("branch3x3", 384, THREE, "half")),
            chain(x, *double, ("branch3x3dbl_3", 96, THREE, "half")),
            halved(x),
        ]
        return jnp.concatenate(branches, -1)


class BlockC(nn.Module):
    """On 17 x 17 pixels; 7 x 7 kernels as a row and a column."""

    inner: int

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h w c2"]:
        n = self.inner
        single = ("branch7x7_1", n, ONE), ("branch7x7_2", n, ROW), ("branch7x7_3", 192, COLUMN)
        double = ("branch7x7dbl_1", n, ONE), ("branch7x7dbl_2", n, COLUMN), ("branch7x7dbl_3", n, ROW)
        branches = [
            chain(x, ("branch1x1", 192, ONE)),
            chain(x, *single),
            chain(x, *double, ("branch7x7dbl_4", n, COLUMN), ("branch7x7dbl_5", 192, ROW)),
            chain(around(x), ("branch_pool", 192, ONE)),
        ]
        return jnp.concatenate(branches, -1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8 pixels."""

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h2 w2 c2"]:
        crossed = ("branch7x7x3_1", 192, ONE), ("branch7x7x3_2", 192, ROW), ("branch7x7x3_3", 192, COLUMN)
        branches = [
            chain(x, ("branch3x3_1", 192, ONE), ("branch3x3_2", 320, THREE, "half")),
            chain(x, *crossed, ("branch7x7x3_4", 192, THREE, "half")),
            halved(x),
        ]
        return jnp.concatenate(branches, -1)


class BlockE(nn.Module):
    """On 8 x 8 pixels; a row and a column side by side."""

    most: bool  # its pool takes the maximum

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h w c2"]:
        pooled = nn.max_pool(x, THREE, padding="SAME") if self.most else around(x)
        single = chain(x, ("branch3x3_1", 384, ONE))
        double = chain(x, ("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, THREE))
        branches = [
            chain(x, ("branch1x1", 320, ONE)),
            chain(single, ("branch3x3_2a", 384, (1, 3))),
            chain(single, ("branch3x3_2b", 384, (3, 1))),
            chain(double, ("branch3x3dbl_3a", 384, (1, 3))),
            chain(double, ("branch3x3dbl_3b", 384, (3, 1))),
            chain(pooled, ("branch_pool", 192, ONE)),
        ]
        return jnp.concatenate(branches, -1)


class Inception(nn.Module):
    """Returns logits [b, 1008], and {"pool3": [b, 2048], "logits"}: what the distance is measured on is pool3.

    Images are in [-1, 1], of 299 x 299 pixels as a rule, of 75 x 75 at least.
    """

    @nn.compact
    def __call__(self, images: Image) -> tuple[Float[Array, "b k"], Features]:
        x = ConvRelu(32, THREE, 2, False, name="Conv2d_1a_3x3")(images)
        x = ConvRelu(32, THREE, 1, False, name="Conv2d_2a_3x3")(x)
        x = halved(ConvRelu(64, THREE, name="Conv2d_2b_3x3")(x))
        x = ConvRelu(80, ONE, name="Conv2d_3b_1x1")(x)
        x = halved(ConvRelu(192, THREE, 1, False, name="Conv2d_4a_3x3")(x))
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pooled, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(inner, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(False, name="Mixed_7b")(x)
        pool3 = BlockE(True, name="Mixed_7c")(x).mean((1, 2))
        logits = nn.Dense(CLASSES, name="fc")(pool3)
        return logits, {"pool3": pool3, "logits": logits}


# Images, and weights ----------------------------------------------------------------------------------------


def prepared(images: Bytes) -> Float[Array, "b 299 299 3"]:
    """(1), then to [-1, 1): what the network takes, of images of any size, grey or in colour."""
    _, height, width, channels = images.shape
    scaled = jnp.einsum(
        "ih,jw,bhwc->bijc",
        weights(height, SIDE),
        weights(width, SIDE),
        images.astype(jnp.float32),
        precision="highest",
    )
    return jnp.tile((scaled - 128) / 128, (1, 1, 1, 3 // channels))


def weights(n: int, m: int) -> Float[np.ndarray, "{m} {n}"]:
    """(1) as a matrix."""
    place = np.arange(m) * n / m
    low = np.floor(place).astype(int)
    found, rows, part = np.zeros((m, n), np.float32), np.arange(m), place - low
    np.add.at(found, (rows, low), 1 - part)
    np.add.at(found, (rows, np.minimum(low + 1, n - 1)), part)
    return found


def converted(arrays: Mapping[str, np.ndarray], path: str | Path) -> Tree:
    """Variables of `Inception`, of a state dict of these names; `path` is for messages.

    Raises ValueError that names the first key that is missing or has another shape.
    """
    abstract = jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
    named = partial(take, arrays, path=path)
    params = {name: _part(named, name, inner) for name, inner in abstract.items() if name != "fc"}
    kernel = named("fc.weight", (CLASSES, WIDTH)).T
    return {"params": params | {"fc": {"kernel": kernel, "bias": named("fc.bias", (CLASSES,))}}}


def _part(named: partial, name: str, abstract: Tree) -> Tree:
    if "conv" in abstract:
        return {"conv": _folded(named, name, abstract["conv"]["kernel"].shape)}
    return {inner: _part(named, f"{name}.{inner}", below) for inner, below in abstract.items()}


def _folded(named: partial, name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """gamma (conv(x) - mean) / sqrt(var + eps) + beta, as one kernel and one bias."""
    height, width, inputs, outputs = shape
    kernel = named(f"{name}.conv.weight", (outputs, inputs, height, width)).astype(np.float64)
    fields = (f"{name}.bn.{field}" for field in ("weight", "bias", "running_mean", "running_var"))
    gamma, beta, mean, var = (named(field, (outputs,)).astype(np.float64) for field in fields)
    gain = gamma / np.sqrt(var + EPSILON)
    folded = {"kernel": kernel.transpose(2, 3, 1, 0) * gain, "bias": beta - mean * gain}
    return {field: x.astype(np.float32) for field, x in folded.items()}
