"""What each section of z knows by itself. Section i of z [b, s * d] is its i-th d dimensions."""

import numpy as np
from jaxtyping import Float

from soda_jax.evaluation.features import Table
from soda_jax.evaluation.linear_probe import LinearProbe
from soda_jax.evaluation.stacked_probe import Stack, answer_all, choose_heads


def section_accuracy(
    train: Table, test: Table, sections: int, classes: dict[str, int], settings: LinearProbe
) -> Float[np.ndarray, "s l"]:
    """Test accuracy of each label, read from each section of the feature "z" alone."""
    x, queries = cut(train.features["z"], sections), cut(test.features["z"], sections)
    y = np.stack([train.labels[name] for name in classes]).astype(np.int32)
    truth, counts = np.stack([test.labels[name] for name in classes]), tuple(classes.values())
    choice = choose_heads(x, y, counts, train.groups, settings)
    return (answer_all(x, y, counts, choice, queries, settings) == truth[None]).mean(-1)


def cut(z: Float[np.ndarray, "b n"], sections: int) -> Stack:
    """z by sections."""
    return np.moveaxis(z.reshape(len(z), sections, -1), 1, 0)
