"""What the person before the screen sees: a bar on a terminal, plain lines in a log file."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from soda_jax.parallel.processes import is_main

SAVE_SHARE = 0.02  # of the time between two checkpoints: more is said to be too much


class Progress:
    """Shows how far training is; silent outside process 0."""

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        left: Callable[[], float] = lambda: math.inf,
        stream: Any = None,
        main: bool | None = None,
    ):
        """total and done: in images. left: says after how many seconds it is ended. stream: stdout by default."""
        self._stream, self._left = sys.stdout if stream is None else stream, left
        self._main = is_main() if main is None else main
        self.total, self._bar = total, None
        if self._main and self._stream.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=" images",
                unit_scale=True,
                smoothing=0.1,
                file=self._stream,
                dynamic_ncols=True,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()

    def advance(self, images: int) -> None:
        """The bar alone: lines are written by `report`."""
        if self._bar is not None:
            self._bar.update(images)

    def report(self, record: Mapping[str, Any]) -> None:
        """A record of the loop: images, loss, images_per_second, data_wait (share of the time)."""
        if self._bar is not None:
            end = f", ends in {clock(self._left())} at most" if math.isfinite(self._left()) else ""
            words = f"loss {record['loss']:.4f}, data wait {record['data_wait']:.0%}{end}"
            self._bar.set_postfix_str(words)
        else:
            self.say(line(record, self.total, self._left()))
        if record.get("save_share", 0) > SAVE_SHARE:
            self.say(
                f"warning: saving held training up for {record['save_seconds']:.2f} s, {record['save_share']:.1%} of "
                "the time since the last checkpoint: raise checkpoint.every_images"
            )

    def say(self, text: str) -> None:
        """A line of text that does not break the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._main:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def line(record: Mapping[str, Any], total: int, at_most: float = math.inf) -> str:
    """One plain line of progress. at_most: seconds after which training is ended, wherever it is then."""
    rate = record["images_per_second"]
    save = (
        f"  save {record['save_seconds']:.2f} s ({record['save_share']:.1%})"
        if "save_share" in record
        else ""
    )
    seconds = min((total - record["images"]) / rate if rate else math.inf, at_most)
    left = f"{clock(seconds)} left" if math.isfinite(seconds) else "?"
    return (
        f"step {record['step']}  images {record['images']:,}/{total:,}  loss {record['loss']:.4f}  "
        f"{rate:,.1f} images/s  data wait {record['data_wait']:.0%}{save}  {left}"
    )


def clock(seconds: int | float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def elapsed(words: str, every: float = 60.0) -> Iterator[None]:
    """Says `words` and how long it has taken, every so many seconds: for work that cannot tell how far it is."""
    start, over = time.monotonic(), threading.Event()

    def watch() -> None:
        while not over.wait(every):
            print(f"{words}: {clock(time.monotonic() - start)} so far", flush=True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
