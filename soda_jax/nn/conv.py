"""Convolution on NHWC images, and the reshapes that trade resolution for channels.

Every convolution of every network goes through `Conv`, so that how it is computed can change in one place.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.types import Image

FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class Conv(nn.Module):
    """A square convolution with padding kernel // 2 on all four sides, whatever the stride.

    (`"SAME"` would pad a strided convolution on one side only; PyTorch's networks pad equally, as ours do.)
    Parameters: `kernel` [k, k, c_in, c_out] and `bias` [c_out], both float32; `dtype` is that of the compute.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    kernel_init: Any = FAN_IN
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b h2 w2 {self.features}"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)[None, None, None]


def convolve(x: Image, kernel: Float[Array, "k k c o"], stride: int) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlate with padding k // 2 on each side; h2 = ceil(h / stride) for odd k."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


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
