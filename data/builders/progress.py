"""Progress of a long preparation: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def report(
    items: Iterable[T], *, total: int, label: str, unit: str, stream: TextIO | None = None
) -> Iterator[T]:
    """Passes `items` through and reports how many of `total` have gone by."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        yield from tqdm(items, total=total, desc=label, unit=f" {unit}", file=stream)
    else:
        yield from _lines(items, total, label, unit, stream)


def _lines(items, total, label, unit, stream, every_seconds: float = 5.0):
    start = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= every_seconds or count == total:
            shown = now
            rate = count / max(now - start, 1e-9)
            print(f"{label}: {count:,} of {total:,} {unit}, {rate:,.0f} a second", file=stream, flush=True)
