"""Training views of dense tasks: one image and what is true of it, moved and mirrored together.

The middle square is scaled to the size that the encoder reads, then moved by one affine map A about its middle,

    p' = A (p - m) + m,   A = zoom R(angle) F,   m = (size - 1) / 2                                       (1)

F mirrors left and right, with probability `mirror`; the angle is uniform in +-`rotation` degrees, the zoom in
1 +- `zoom`. Images are interpolated linearly and continued at their border by its pixels, masks by the nearest pixel
and beyond it by IGNORED. Brightness, contrast and colour change by up to `colour`, each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data import augment
from data.dense import TASKS, Truth, truth, within
from data.dense_info import IGNORED
from data.errors import DataError
from data.views import Views, decode, with_channels

_IDENTITY = np.eye(2, 3)


@dataclass(frozen=True, kw_only=True)
class DenseViews(Views):
    """How an example is made; the fields from `rotation` on are the `config.dense` keys of their names.

    pairs: numbers of the keypoints that a mirror image exchanges. upright: whether they forbid to turn the image.
    DataError for values out of range, naming the key.
    """

    task: str
    rotation: float = 0.0
    zoom: float = 0.0
    mirror: float = 0.0
    colour: float = 0.0
    pairs: tuple[tuple[int, int], ...] = ()
    upright: bool = False

    def __post_init__(self):
        super().__post_init__()
        for key, (legal, expected) in self._rules().items():
            if not legal:
                raise DataError(f"config.dense.{key} = {getattr(self, key)!r}: expected {expected}")

    def _rules(self) -> dict[str, tuple[bool, str]]:
        turned = self.upright and self.task == "landmarks"
        why = (
            "0: keypoints of this data set are extremes of the upright image"
            if turned
            else "0 to 180 degrees"
        )
        return {
            "task": (self.task in TASKS, f"one of {', '.join(TASKS)}"),
            "rotation": (self.rotation == 0 if turned else 0 <= self.rotation <= 180, why),
            "zoom": (0 <= self.zoom < 1, "0 or more, and below 1"),
            "mirror": (0 <= self.mirror <= 1, "a probability in [0, 1]"),
            "colour": (0 <= self.colour <= 1, "0 to 1"),
        }

    @property
    def draws(self) -> int:
        """How many random numbers `two_views` takes."""
        return 7

    def two_views(self, example: Mapping[str, Any], rng: augment.Uniform) -> dict[str, Any]:
        """Source uint8 `[source_size, source_size, c]` and index int32, with the truth of it."""
        which = augment.draw_below(rng, len(example["images"]))
        image = augment.centre_crop(decode(example["images"][which], self.channels), self.source_size)
        matrix, mirrored = self._draw_map(rng)
        known = self._moved(truth(example, which, self.source_size), matrix, mirrored)
        image = self._recoloured(warped(image, matrix), rng)
        return {"source": with_channels(image), "index": np.int32(example["index"]), **known}

    def _draw_map(self, rng: augment.Uniform) -> tuple[np.ndarray, bool]:
        """(1) as a matrix [2, 3] of pixels, and whether it mirrors."""
        angle = augment.uniform(rng, -self.rotation, self.rotation)
        zoom = augment.uniform(rng, 1 - self.zoom, 1 + self.zoom)
        mirrored = rng.random() < self.mirror
        middle = (self.source_size - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), angle, zoom)
        if mirrored:
            matrix = matrix @ np.array([[-1, 0, 2 * middle], [0, 1, 0], [0, 0, 1]])
        return matrix, mirrored

    def _moved(self, known: Truth, matrix: np.ndarray, mirrored: bool) -> Truth:
        if "mask" in known:
            return {"mask": warped(known["mask"], matrix, cv2.INTER_NEAREST, IGNORED)}
        points = (known["points"] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        seen, order = within(points, known["seen"], self.source_size), self._order(len(points), mirrored)
        scale = known["scale"] * np.float32(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        return {"points": points[order], "seen": seen[order], "scale": scale}

    def _order(self, count: int, mirrored: bool) -> np.ndarray:
        order = np.arange(count)
        for a, b in self.pairs if mirrored else ():
            order[[a, b]] = order[[b, a]]
        return order

    def _recoloured(self, image: np.ndarray, rng: augment.Uniform) -> np.ndarray:
        for change in (augment.brightness, augment.contrast, augment.colour):
            level = augment.uniform(rng, -self.colour, self.colour)
            image = change(image, level) if self.colour else image
        return image


def warped(
    image: np.ndarray, matrix: np.ndarray, method: int = cv2.INTER_LINEAR, border: int | None = None
) -> np.ndarray:
    """The image moved by matrix [2, 3]; beyond its border its own pixels go on, or this value."""
    if np.array_equal(matrix, _IDENTITY):
        return image
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    size = image.shape[1::-1]
    return cv2.warpAffine(image, matrix, size, flags=method, borderMode=mode, borderValue=border or 0)
