"""The small network by which RepFusion (arXiv 2308.10916) looks at an image before it chooses a time: LeNet's.

5 x 5 convolutions without padding, ReLU, 2 x 2 max-pooling: 6, 16 (and, from 48 pixels on, 16) channels;
then 120, 84 and as many numbers as there are actions
"""

from flax import linen as nn
from jaxtyping import Array, Float

from soda_jax.types import Image

SMALLEST, LARGE = 16, 48  # pixels a side: less leaves nothing; from here on a third convolution


class PolicyNet(nn.Module):
    """Scores of the actions. ValueError for images below 16 pixels a side."""

    actions: int

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "b {self.actions}"]:
        side = min(x.shape[1:3])
        if side < SMALLEST:
            raise ValueError(
                f"data.source_size: a policy needs {SMALLEST} pixels a side or more, found {side}"
            )
        for number, features in enumerate((6, 16, 16) if side >= LARGE else (6, 16)):
            x = nn.relu(nn.Conv(features, (5, 5), padding="VALID", name=f"conv_{number}")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for number, width in enumerate((120, 84)):
            x = nn.relu(nn.Dense(width, name=f"layer_{number}")(x))
        return nn.Dense(self.actions, name="last")(x)
