"""SIGTERM and Ctrl-C as a request: the step under way is finished, the state saved, the exit status 0."""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A context manager that turns the signals into a flag; a second Ctrl-C interrupts at once."""

    def __init__(self):
        self.requested: str | None = None  # name of the signal that came
        self._before: dict = {}

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __call__(self) -> bool:
        """True once a signal has come."""
        return self.requested is not None

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
        text = f"\n{self.requested}: finishing this step, then saving (Ctrl-C again: give up at once)\n"
        os.write(2, text.encode())  # print() may not be entered twice, and a signal may come inside of it
