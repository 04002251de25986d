"""SIGTERM and Ctrl-C, as a request (training: finish the step, save, exit with 0) or as an end (all other jobs)."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TIME_IS_UP = "time_is_up.json"  # what a training that its minutes have ended leaves in its workdir


class StopRequest:
    """A context manager that turns the signals into a flag; the same job once more, and it ends at once.

    With several processes SIGTERM is left to JAX, whose processes then agree on the step to stop after
    (`parallel.processes.preempted`): a handler of Python's would hide the signal from it.
    """

    def __init__(self, signals: tuple[signal.Signals, ...] = SIGNALS):
        self.requested: str | None = None  # name of the signal that came
        self._signals, self._before = signals, {}

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._handle) for number in self._signals}
        return self

    def __call__(self) -> bool:
        """True once a signal has come."""
        return self.requested is not None

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            end_by(number)
        self.requested = signal.Signals(number).name
        text = f"\n{self.requested}: finishing this step, then saving (once more: give up at once)\n"
        os.write(2, text.encode())  # print() may not be entered twice, and a signal may come inside of it


def end_by(number: int) -> None:
    """Ctrl-C: KeyboardInterrupt. SIGTERM: the end of this process, wherever it is."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Python raises Ctrl-C."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """For jobs that begin again from what is whole: SIGTERM raises Terminated; a second one ends the process.

    Python drops what is raised while it runs a finaliser; a Terminated that was lost there is raised at the end.
    """
    heard = []

    def handle(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
        if heard:
            raise Terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status that says which signal it was."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
