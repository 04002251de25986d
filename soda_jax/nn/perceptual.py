"""AlexNet and VGG-16 up to their last convolutions: the networks that LPIPS compares images by (arXiv 1801.03924).

Names and numbers are those of torchvision's `alexnet` and `vgg16` ("features.0.weight", ...), whose files can be read.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.nn.checks import check_choice
from soda_jax.nn.torch_weights import take
from soda_jax.types import Image, Tree

# of each stage: (number in the file, features, kernel, stride, padding); a pool before every stage but the first
ALEX = (
    ((0, 64, 11, 4, 2),),
    ((3, 192, 5, 1, 2),),
    ((6, 384, 3, 1, 1),),
    ((8, 256, 3, 1, 1),),
    ((10, 256, 3, 1, 1),),
)
VGG = tuple(
    tuple((number, features, 3, 1, 1) for number in numbers)
    for features, numbers in (
        (64, (0, 2)),
        (128, (5, 7)),
        (256, (10, 12, 14)),
        (512, (17, 19, 21)),
        (512, (24, 26, 28)),
    )
)
STAGES = {"alex": ALEX, "vgg": VGG}
POOLS = {"alex": (3, (1, 2)), "vgg": (2, (1, 2, 3, 4))}  # its size (the stride is 2), before which stages


class Stages(nn.Module):
    """Activations [b, h, w, c] after the last ReLU of each of five stages, of images scaled for ImageNet's networks."""

    kind: str  # of STAGES

    @nn.compact
    def __call__(self, x: Image) -> list[Float[Array, "b _ _ _"]]:
        check_choice("network", self.kind, list(STAGES))
        size, before = POOLS[self.kind]
        found = []
        for stage, layers in enumerate(STAGES[self.kind]):
            x = nn.max_pool(x, (size, size), (2, 2)) if stage in before else x
            for number, features, kernel, stride, pad in layers:
                conv = nn.Conv(
                    features, (kernel, kernel), stride, [(pad, pad)] * 2, name=f"features_{number}"
                )
                x = nn.relu(conv(x))
            found.append(x)
        return found


def converted(kind: str, arrays: Mapping[str, np.ndarray], path: str | Path) -> Tree:
    """Variables of `Stages`, of a state dict of torchvision's network; `path` is for messages.

    Raises ValueError that names the first key that is missing or has another shape.
    """
    check_choice("network", kind, list(STAGES))
    params, inputs = {}, 3
    for number, features, size, *_ in (layer for stage in STAGES[kind] for layer in stage):
        kernel = take(arrays, f"features.{number}.weight", (features, inputs, size, size), path)
        bias = take(arrays, f"features.{number}.bias", (features,), path)
        params[f"features_{number}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        inputs = features
    return {"params": params}
