"""Two things measured in one run, by turns, so that what else the machine does falls on both alike."""

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

Turn = Callable[[], int]  # does some work, returns how many images that was


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, smallest and largest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """The spread of one or more values."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))

    def text(self, digits: int) -> str:
        """`median [low, high]`."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def images_per_second(turn: Turn) -> float:
    """Of one turn, by the wall clock."""
    start = time.perf_counter()
    images = turn()
    return images / (time.perf_counter() - start)


def measure(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Images/s of every turn in every round, after one round that does not count.

    Every other round goes backwards, so that none of them is always the first.
    """
    for turn in turns.values():
        turn()
    rates = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            rates[name].append(images_per_second(turns[name]))
    return rates


def table(rates: dict[str, list[float]], ours: str, theirs: str) -> str:
    """Rows of images/s, and of the ratio ours / theirs, taken round by round, where both were measured."""
    rounds = len(next(iter(rates.values())))
    rows = [f"{'':24} median [lowest, highest] of {rounds} rounds"]
    rows += [f"{name:24} {Spread.of(values).text(1)} images/s" for name, values in rates.items()]
    if rates.keys() >= {ours, theirs}:
        ratios = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
        rows.append(f"{'ratio':24} {Spread.of(ratios).text(2)}  ({ours} / {theirs}; above 1: ours is faster)")
    return "\n".join(rows)


def hardware(cores: set[int]) -> str:
    """One line: processor, the cores in use, load, system."""
    load = f"load {os.getloadavg()[0]:.1f}"
    return f"{processor()}, {len(cores)} of {os.cpu_count()} cores, {load}, {platform.system()}"


def processor() -> str:
    """Its name, where Linux tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def versions(*packages: str) -> str:
    """One line of package versions."""
    return ", ".join(f"{package} {_version(package)}" for package in packages)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def use_cores(count: int) -> set[int]:
    """Binds this process to `count` of its cores; call it before anything starts threads.

    Raises ValueError where it may not use as many.
    """
    present = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(present):
        raise ValueError(f"expected 1 to {len(present)} cores, found {count}")
    os.sched_setaffinity(0, present[:count])
    return set(present[:count])
