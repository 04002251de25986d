"""What masks and keypoints of a data set stand for; kept in its metadata.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

IGNORED = 255  # in a mask: a pixel that nobody labelled, or that lies outside of the image
UNLABELLED, HIDDEN, SEEN = (
    0,
    1,
    2,
)  # of a keypoint: not labelled or outside, behind something, in sight (as COCO's)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseInfo:
    """Names, in the order of their numbers.

    Attributes:
        classes: of a mask's pixels, the background first; () where there are no masks.
        points: of the keypoints; () where there are none.
        pairs: numbers of the points that a mirror image exchanges.
        upright: whether points are extremes of the upright image ("left", "upper"), so that images must not be turned.
        sided: whether some classes lie on one side ("l_eye"), so that masks must not be mirrored.
        scale: in words, the length that distances of points are divided by.
    """

    classes: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    upright: bool = False
    sided: bool = False
    scale: str = ""


def from_metadata(metadata: Mapping[str, Any] | None) -> DenseInfo:
    """Of a prepared data set's metadata; that of one without masks and keypoints is empty."""
    found = dict((metadata or {}).get("dense", {}))
    for name in ("classes", "points"):
        found[name] = tuple(found.get(name, ()))
    return DenseInfo(**{**found, "pairs": tuple(tuple(pair) for pair in found.get("pairs", ()))})
