"""The vocabulary of shapes, and the aliases that all of soda_jax uses.

Letters in shapes: `b` examples, `h w c` height, width and channels of an image, `s` sections of the latent,
`d` width of one section, `v` source views, `n` features, `k` classes, `r` probe runs (rows of the grid), `*t` any shape
of times.
Images inside the networks are float in [-1, 1]; images on their way to the device are uint8 in 0..255.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float, Int, Key, UInt8

Image = Float[Array, "b h w c"]  # in [-1, 1]
Bytes = UInt8[Array, "b h w c"]  # in 0..255, as it travels to the device
Latent = Float[Array, "b s d"]  # z, cut into its sections
Time = Float[Array, "*t"]  # diffusion time in [0, 1]: 0 is clean, 1 is noise
Labels = Int[Array, "b"]
Keys = Key[Array, "b"]  # one key an example, so that draws do not depend on how a batch is cut
Tree = Any  # a pytree of arrays (or of ShapeDtypeStructs); its shapes are in the comment beside it
Batch = Mapping[str, Any]  # name -> array whose first axis is b
Features = dict[str, Any]  # name of an activation -> array whose first axis is b
