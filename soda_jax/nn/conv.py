"""Convolution on NHWC images, and the reshapes that trade resolution for channels.

Every convolution of every network goes through `Conv`, so that how it is computed can change in one place.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.types import Image

FEW_PIXELS = 4  # of an output image; measured on two x86 cores
FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # arXiv 1502.01852


class Conv(nn.Module):
    """A square convolution with padding kernel // 2 on all four sides, whatever the stride.

    (`"SAME"` would pad a strided convolution on one side only; PyTorch's networks pad equally, as ours do.)
    Parameters: `kernel` [k, k, c_in, c_out] and `bias` [c_out], both float32; `dtype` is that of the compute.
    depthwise: every channel has a filter of its own, `kernel` is [k, k, 1, c], and `features` must be c.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    kernel_init: Any = FAN_IN
    use_bias: bool = True
    bias_init: Any = nn.initializers.zeros
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h2 w2 {self.features}"]:
        shape = (self.kernel, self.kernel, 1 if self.depthwise else x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        way = convolve_channels if self.depthwise else convolve
        y = way(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)[None, None, None]


def convolve(x: Image, kernel: Float[Array, "k k c o"], stride: int) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlate with padding k // 2 on each side; h2 = ceil(h / stride) for odd k.

    On CPUs, XLA convolves few pixels at a fraction of the speed of a matrix product, so small outputs
    are computed as one. The choice is made per platform when the program is compiled, not when it is traced.
    """
    pixels = math.prod(-(-side // stride) for side in x.shape[1:3])
    if pixels > FEW_PIXELS:
        return convolve_by_xla(x, kernel, stride)
    product, native = partial(convolve_by_product, stride=stride), partial(convolve_by_xla, stride=stride)
    return jax.lax.platform_dependent(x, kernel, cpu=product, default=native)


def convolve_by_xla(x: Image, kernel: Float[Array, "k k c o"], stride: int) -> Float[Array, "b h2 w2 o"]:
    """`convolve`, left to the compiler."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_by_product(x: Image, kernel: Float[Array, "k k c o"], stride: int) -> Float[Array, "b h2 w2 o"]:
    """`convolve` as windows [b, h2, w2, k*k*c] times a matrix."""
    k, _, c, o = kernel.shape
    return jnp.concatenate(shifted(x, k, stride), -1) @ kernel.reshape(k * k * c, o)


def convolve_channels(x: Image, kernel: Float[Array, "k k 1 c"], stride: int) -> Float[Array, "b h2 w2 c"]:
    """`convolve`, each channel with a filter of its own (depthwise).

    On CPUs the sum of k^2 shifted images takes a third to a fiftieth of the time of XLA's grouped convolution, with
    its gradients (measured on two x86 cores, 64 images of 32x32x96 to 2x2x960).
    """
    native, by_sum = partial(channels_by_xla, stride=stride), partial(channels_by_sum, stride=stride)
    return jax.lax.platform_dependent(x, kernel, cpu=by_sum, default=native)


def channels_by_xla(x: Image, kernel: Float[Array, "k k 1 c"], stride: int) -> Float[Array, "b h2 w2 c"]:
    """`convolve_channels`, left to the compiler."""
    pad, names = kernel.shape[0] // 2, ("NHWC", "HWIO", "NHWC")
    fields = {"dimension_numbers": names, "feature_group_count": x.shape[-1]}
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, **fields)


def channels_by_sum(x: Image, kernel: Float[Array, "k k 1 c"], stride: int) -> Float[Array, "b h2 w2 c"]:
    """`convolve_channels` as a sum of shifted images."""
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    first, *rest = [x * w for x, w in zip(shifted(x, kernel.shape[0], stride), weights, strict=True)]
    return sum(rest, first)


def shifted(x: Image, k: int, stride: int) -> list[Float[Array, "b h2 w2 c"]]:
    """What each of the k^2 places of a window sees, row by row, with padding k // 2."""
    pad = k // 2
    h, w = (-(-side // stride) for side in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = stride * (h - 1) + 1, stride * (w - 1) + 1
    return [padded[:, i : i + rows : stride, j : j + columns : stride] for i in range(k) for j in range(k)]


def max_pool(x: Image) -> Float[Array, "b h2 w2 c"]:
    """The greatest of each 3 x 3 window, every other place, with padding 1 on each side; h2 = ceil(h / 2).

    On CPUs the gradient of XLA's own takes 20 times as long as that of two maxima of three, one a side (measured on
    one x86 core, 16 images of 32x32x24: 11.9 and 0.6 ms). Equals share a gradient there that XLA gives to one of
    them: behind a ReLU those are zeros, which let no gradient through.
    """
    return jax.lax.platform_dependent(x, cpu=pool_by_maxima, default=pool_by_windows)


def pool_by_windows(x: Image) -> Float[Array, "b h2 w2 c"]:
    """`max_pool`, left to the compiler."""
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def pool_by_maxima(x: Image) -> Float[Array, "b h2 w2 c"]:
    """`max_pool`, down the columns and then along the rows."""
    for axis in (1, 2):
        sides = [(1, 1) if place == axis else (0, 0) for place in range(4)]
        padded, size = jnp.pad(x, sides, constant_values=-jnp.inf), x.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, i, i + size, 2, axis) for i in range(3)]
        x = jnp.maximum(jnp.maximum(parts[0], parts[1]), parts[2])
    return x


def upsample(x: Image) -> Float[Array, "b 2*h 2*w c"]:
    """Nearest-neighbour upsampling by 2, as a broadcast."""
    b, h, w, c = x.shape
    grid = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return grid.reshape(b, 2 * h, 2 * w, c)


def space_to_depth(x: Image, patch: int) -> Float[Array, "b h//{patch} w//{patch} c*{patch}**2"]:
    """[b, h, w, c] -> [b, h/p, w/p, p*p*c]: each p x p patch becomes one pixel."""
    b, h, w, c = x.shape
    grid = x.reshape(b, h // patch, patch, w // patch, patch, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, patch * patch * c)


def depth_to_space(x: Image, patch: int) -> Float[Array, "b h*{patch} w*{patch} c//{patch}**2"]:
    """The inverse of `space_to_depth`."""
    b, h, w, n = x.shape
    grid = x.reshape(b, h, w, patch, patch, n // patch**2)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, n // patch**2)
