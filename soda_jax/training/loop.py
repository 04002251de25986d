"""The loop: fetch, step, and look at the numbers of the step before while the device works on this one.

Order is a contract. At a step where something is due: hooks, then the step's own numbers, then the log line,
then the checkpoint; so a checkpoint holds the sums as the log left them, and going on repeats nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np

from soda_jax.parallel.processes import any_process, preempted, process_count
from soda_jax.training.ledger import Ledger
from soda_jax.types import Batch, Tree


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """In images, so that they survive another batch size; 0 means never. And in minutes; 0: no limit."""

    batch: int
    images: int
    log_every: int
    save_every: int
    minutes: float = 0.0

    def __post_init__(self):
        for name in ("batch", "images", "log_every", "save_every"):
            least = 1 if name in ("batch", "images") else 0
            if getattr(self, name) < least:
                raise ValueError(f"{_KEYS[name]} must be {least} or more, found {getattr(self, name)}")
        if not 0 <= self.minutes < math.inf:
            raise ValueError(f"train.minutes must be 0 (no limit) or more, found {self.minutes}")

    @property
    def steps(self) -> int:
        """Of the whole training; the last one completes `images`."""
        return -(-self.images // self.batch)

    def due(self, every: int, step: int) -> bool:
        """True at the step that reaches a multiple of `every` images."""
        return bool(every) and step * self.batch // every != (step - 1) * self.batch // every

    def logs(self, step: int) -> bool:
        """True where a record is written: on schedule, and at the end."""
        return self.due(self.log_every, step) or step == self.steps


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Something to do every so many images, and at the end; what `run` returns goes into the next record."""

    every_images: int
    run: Callable[[Tree, int], Mapping[str, Any] | None]


@runtime_checkable
class Saver(Protocol):
    """What keeps checkpoints."""

    def save(self, step: int, state: Tree, progress: dict[str, Any]) -> None:
        """Takes a copy at once, writes it when it likes."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop is put together from."""

    step: Callable[[Tree, Batch], tuple[Tree, dict]]  # compiled; donates the state
    put: Callable[[Batch], Batch]  # a batch of the host onto the devices
    record: Callable[[dict[str, Any]], None]  # called with each record
    advance: Callable[[int], None]  # called with the images of each step
    checkpoints: Saver
    stop: Callable[[], bool]  # asked once a step: shall we end here?
    time_is_up: Callable[[], bool] = lambda: False  # likewise, for another reason
    hooks: Sequence[Hook] = ()
    note: Callable[[str, int], None] = lambda phase, step: None  # called as each phase of a step begins


Early = Literal["stopped", "time is up"]


@dataclass(frozen=True, kw_only=True)
class End:
    """How training ended, at which step, and the batch that broke it ("diverged")."""

    kind: Literal["finished", "stopped", "time is up", "diverged"]
    step: int
    batch: Batch | None = None


@dataclass(frozen=True, kw_only=True)
class Late:
    """A step whose numbers are not read yet."""

    step: int
    metrics: dict[str, jax.Array]
    batch: Batch


def train(
    state: Tree, first: int, batches: Iterator[Batch], parts: Parts, lengths: Lengths, ledger: Ledger
) -> tuple[Tree, End]:
    """Runs the steps first + 1 .. lengths.steps; `batches` gives the batch of step first + 1 first.

    The state is donated step by step: use the one that is returned. It has been saved, unless training
    diverged: then it is the state before the batch that is returned with it.
    """
    late: Late | None = None
    ledger.clock.start()
    with jax.transfer_guard("disallow"):
        for number in range(first + 1, lengths.steps + 1):
            parts.note("batch", number)
            batch = fetch(batches, parts, ledger)
            if batch is None:
                return state, saved("stopped", state, number - 1, late, parts, lengths, ledger)
            parts.note("step", number)
            state, metrics = parts.step(state, batch)
            ledger.clock.tick()
            parts.note("numbers", number)
            previous, late = late, Late(step=number, metrics=metrics, batch=batch)
            if previous and not settle(previous, parts, lengths, ledger):
                return state, End(kind="diverged", step=previous.step, batch=previous.batch)
            if is_event(number, parts, lengths):
                if not attend(state, late, parts, lengths, ledger):
                    return state, End(kind="diverged", step=number, batch=batch)
                late = None
            if number < lengths.steps and (reason := why_end(number, parts, lengths)):
                return state, saved(reason, state, number, late, parts, lengths, ledger)
    return state, End(kind="finished", step=max(first, lengths.steps))


def fetch(batches: Iterator[Batch], parts: Parts, ledger: Ledger) -> Batch | None:
    """The next batch, on the devices; None if it failed because we are being stopped."""
    try:
        with ledger.clock.waiting():
            return parts.put(next(batches))
    except Exception:
        if parts.stop():  # Ctrl-C reaches the data workers as well, and they just die
            return None
        raise


def settle(late: Late, parts: Parts, lengths: Lengths, ledger: Ledger) -> bool:
    """Reads the numbers of a step, and writes the record that is due there; False if they are not finite."""
    metrics = {name: np.asarray(value).item() for name, value in jax.device_get(late.metrics).items()}
    if not metrics.pop("finite", True):
        return False
    ledger.add(metrics)
    parts.advance(lengths.batch)
    if lengths.logs(late.step):
        parts.record(ledger.close(late.step, lengths.batch))
    return True


def is_event(step: int, parts: Parts, lengths: Lengths) -> bool:
    """True where the state is needed: by a hook, by a checkpoint, at the end."""
    schedules = [lengths.save_every, *(hook.every_images for hook in parts.hooks)]
    return step == lengths.steps or any(lengths.due(every, step) for every in schedules)


def attend(state: Tree, late: Late, parts: Parts, lengths: Lengths, ledger: Ledger) -> bool:
    """Hooks, numbers, log line, checkpoint; False, and no checkpoint, if the numbers are not finite."""
    jax.block_until_ready(late.metrics)  # so that the pause does not swallow time of training
    parts.note("hooks", late.step)
    with ledger.clock.paused(), jax.transfer_guard("allow"):
        for hook in parts.hooks:
            last = step_is_last(late, lengths) and hook.every_images
            if last or lengths.due(hook.every_images, late.step):
                ledger.note(hook.run(state, late.step))
    if not settle(late, parts, lengths, ledger):
        return False
    if lengths.due(lengths.save_every, late.step) or step_is_last(late, lengths):
        save(state, late.step, parts, ledger)
    return True


def step_is_last(late: Late, lengths: Lengths) -> bool:
    """True for the last step of training."""
    return late.step == lengths.steps


def save(state: Tree, step: int, parts: Parts, ledger: Ledger) -> None:
    """Hands the state over; the clock stands still meanwhile."""
    parts.note("save", step)
    with ledger.clock.paused(), jax.transfer_guard("allow"), ledger.saving():
        parts.checkpoints.save(step, state, ledger.saved())


def why_end(step: int, parts: Parts, lengths: Lengths) -> Early | None:
    """Why to end before the end, if so. Several processes agree: on SIGTERM at once, else at the next record."""
    if process_count() > 1 and preempted(step):
        return "stopped"
    if process_count() > 1 and not lengths.logs(step):
        return None
    if any_process(parts.stop()):
        return "stopped"
    return "time is up" if any_process(parts.time_is_up()) else None


def saved(
    reason: Early,
    state: Tree,
    step: int,
    late: Late | None,
    parts: Parts,
    lengths: Lengths,
    ledger: Ledger,
) -> End:
    """Saves, unless the last step turns out to have diverged."""
    if late and not settle(late, parts, lengths, ledger):
        return End(kind="diverged", step=step, batch=late.batch)
    save(state, step, parts, ledger)
    return End(kind=reason, step=step)


_KEYS = {
    "batch": "train.batch",
    "images": "train.images",
    "log_every": "train.log_every_images",
    "save_every": "checkpoint.every_images",
}
