"""The random numbers of the stream of examples: one long sequence, of which every example owns a piece.

Example n of the stream reads entries nK .. (n+1)K - 1 of the Philox sequence of the seed, so its draws depend
on (seed, n) alone, however the stream is cut into batches, processes and workers. Taken for a whole batch at
once they cost some 4 us an example; a generator made or reset for each would cost 5 to 40 us, and each of the
20 draws of an example five times as much.
"""

from collections.abc import Iterable, Iterator

import numpy as np

_WORDS = 4  # numbers that one count of Philox gives


class Tape:
    """Numbers drawn beforehand, behind the `random` method of a generator.

    Raises:
        StopIteration: more numbers were asked for than there are.
    """

    def __init__(self, numbers: Iterable[float]):
        self.random = iter(numbers).__next__


def tapes(seed: int, first: int, count: int, draws: int) -> Iterator[Tape]:
    """A tape of at least `draws` numbers in [0, 1) for each of the examples first .. first + count - 1."""
    counts = -(-draws // _WORDS)
    generator = np.random.Generator(np.random.Philox(key=seed, counter=first * counts))
    return map(Tape, generator.random((count, counts * _WORDS)).tolist())
