"""The 98 points of WFLW (arXiv:1805.10483), by the layout of its annotation; left is left in the image.

    0-32    contour, from the left temple by the chin (16) to the right temple
    33-41   left brow: its upper edge from the outer end to the inner (33-37), its lower edge back (38-41)
    42-50   right brow: its upper edge from the inner end to the outer (42-46), its lower edge back (47-50)
    51-59   nose: down its bridge (51-54), then below it from left to right (55-59)
    60-67   left eye: outer corner (60), upper lid, inner corner (64), lower lid back
    68-75   right eye: inner corner (68), upper lid, outer corner (72), lower lid back
    76-87   lips outside: left corner (76), upper edge, right corner (82), lower edge back
    88-95   lips inside: left corner (88), upper edge, right corner (92), lower edge back
    96, 97  pupils, left and right

A mirror image turns each line round. So the numbers of both members of a pair have one sum along a line.
"""

from data.dense_info import DenseInfo

_LENGTHS = {"contour": 33, "brow_left": 9, "brow_right": 9, "nose": 9, "eye_left": 8, "eye_right": 8}
_LENGTHS |= {"mouth": 20, "pupil_left": 1, "pupil_right": 1}
_LINES = (  # first and last number of a line, and the first of the one that it becomes, which ends where that starts
    (0, 15, 32),  # contour but for the chin
    (33, 37, 46),  # upper edges of the brows
    (38, 41, 50),  # lower edges
    (55, 56, 59),  # below the nose
    (60, 64, 72),  # outer corner, upper lid, inner corner
    (65, 67, 75),  # lower lids
    (76, 78, 82),  # upper edge of the lips
    (83, 84, 87),  # lower edge
    (88, 89, 92),  # inside, upper
    (93, 93, 95),  # inside, lower
    (96, 96, 97),  # pupils
)
OUTER_CORNERS = (60, 72)  # of the eyes: their distance is what errors are divided by


def names() -> tuple[str, ...]:
    """Of each point: its part, and its number in the annotation."""
    parts = [part for part, length in _LENGTHS.items() for _ in range(length)]
    return tuple(f"{part}_{number}" for number, part in enumerate(parts))


def pairs() -> tuple[tuple[int, int], ...]:
    """Those that a mirror image exchanges; the others lie on the middle line."""
    return tuple(
        (number, first + mirrored - number)
        for first, last, mirrored in _LINES
        for number in range(first, last + 1)
    )


INFO = DenseInfo(
    points=names(), pairs=pairs(), scale="distance of the outer corners of the eyes (points 60 and 72)"
)
