"""The sums between two lines of the log, and the clock beside them.

The sums are a part of every checkpoint, in full precision, so that a run that was stopped between two lines
logs the very means that an unbroken one logs.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Json = dict[str, Any]
# What a clock says in a record: all else is the same, bit for bit, however often a run was stopped.
TIMINGS = {"images_per_second", "data_wait", "seconds", "save_seconds", "save_share"}


class Ledger:
    """Sums of the metrics since the last record."""

    def __init__(self, saved: Mapping[str, Any] | None = None):
        saved = saved or {}
        self.sums: dict[str, float] = dict(saved.get("sums", {}))
        self.count: int = saved.get("count", 0)
        self.extra: Json = dict(saved.get("extra", {}))  # of hooks, for the next record
        self.clock = Clock(saved.get("seconds", 0.0))
        self._last_save = time.monotonic()

    def add(self, metrics: Mapping[str, float]) -> None:
        """One step's."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.count += 1

    def note(self, values: Mapping[str, Any] | None) -> None:
        """Something that a hook wants to be written with the next record."""
        self.extra |= values or {}

    @contextmanager
    def saving(self) -> Iterator[None]:
        """For the next record: save_seconds that a save holds training up, and their share since the last one."""
        start = time.monotonic()
        yield
        end = time.monotonic()
        self.note(
            {"save_seconds": end - start, "save_share": (end - start) / max(end - self._last_save, 1e-9)}
        )
        self._last_save = end

    def saved(self) -> Json:
        """What a checkpoint keeps, written while we go on; JSON keeps every bit of a float."""
        sums, extra = dict(self.sums), dict(self.extra)
        return {"sums": sums, "count": self.count, "extra": extra, "seconds": self.clock.seconds}

    def close(self, step: int, batch: int) -> Json:
        """The record of the steps since the last one; starts anew."""
        record = {"step": step, "images": step * batch}
        record |= {name: total / max(self.count, 1) for name, total in self.sums.items()}
        record |= self.clock.lap(batch) | {"seconds": round(self.clock.seconds, 3)} | self.extra
        self.sums, self.count, self.extra = {}, 0, {}
        return record


class Clock:
    """Time of training: without compilation, hooks and saving."""

    def __init__(self, before: float = 0.0):
        self._before = before  # seconds of the runs that this one goes on from
        self._start = self._lap_start = time.monotonic()
        self._steps, self._waited = 0, 0.0

    @property
    def seconds(self) -> float:
        """Of training so far, earlier runs included."""
        return self._before + time.monotonic() - self._start

    def start(self) -> None:
        """Training begins now."""
        self._start = self._lap_start = time.monotonic()

    def tick(self) -> None:
        """A step was sent off."""
        self._steps += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent on getting a batch."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training."""
        start = time.monotonic()
        yield
        gone = time.monotonic() - start
        self._start += gone
        self._lap_start += gone

    def lap(self, batch: int) -> Json:
        """images_per_second and data_wait (share of the time) since the last lap."""
        now = time.monotonic()
        gone = max(now - self._lap_start, 1e-9)
        rates = {"images_per_second": self._steps * batch / gone, "data_wait": min(self._waited / gone, 1.0)}
        self._lap_start, self._steps, self._waited = now, 0, 0.0
        return rates
