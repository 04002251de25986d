"""Says who hangs. On a pod one process that waits for ever makes all others wait, and none of them says why.

Each process notes what it is doing (phase and step). A thread looks on: when nothing has moved for so many
minutes, it says which process is furthest behind and what it was doing, dumps the stacks of this process, and
ends it with status 70. The notes lie in a folder that all processes see: it works while JAX hangs. Time in which the
thread could not look on either does not count: a laptop that slept, or a job that its scheduler suspended, goes on.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STATUS = 70  # EX_SOFTWARE
LOOKS = 20  # how often in the silent time the thread looks

# Within a step, in this order: who is in an earlier phase keeps the others waiting.
PHASES = ("start", "latents", "compile", "restore", "batch", "step", "numbers", "hooks", "save", "end")


@dataclass(frozen=True)
class Note:
    """What a process is doing, and since when (seconds since the epoch)."""

    step: int
    phase: str
    since: float

    @property
    def place(self) -> tuple[int, int]:
        """Grows as the process gets on."""
        return self.step, PHASES.index(self.phase)


class Watchdog:
    """A context manager; `note` is called at each phase. Does nothing where `minutes` is 0."""

    def __init__(
        self,
        folder: str | Path,
        *,
        minutes: int | float,
        process: int,
        processes: int,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
        end: Callable[[int], None] = os._exit,
    ):
        """folder: one that all processes see. say, end: how to speak and to end the process.

        Raises ValueError for a negative `minutes`.
        """
        if minutes < 0:
            raise ValueError(f"train.watchdog_minutes must be 0 (off) or more, found {minutes}")
        self.folder, self.process, self.processes = Path(folder), process, processes
        self._silent, self._say, self._end = 60 * minutes, say, end
        self._note = Note(0, "start", time.time())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._silent:
            self._publish()
            self._thread.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._over.set()
        if self._silent:
            self._thread.join()
            with contextlib.suppress(OSError):
                self._path(self.process).unlink()

    def note(self, phase: str, step: int) -> None:
        """This process begins a phase, one of PHASES."""
        self._note = Note(step, phase, time.time())

    def _look_on(self) -> None:
        pause, seen, silence, looked = self._silent / LOOKS, self._note, 0.0, time.monotonic()
        while not self._over.wait(pause):
            self._publish()
            now, note = time.monotonic(), self._note
            silence = silence + min(now - looked, 2 * pause) if note is seen else 0.0
            seen, looked = note, now
            if silence > self._silent:
                self._say(verdict(dict(self._notes()), self.process, self.processes, time.time()))
                faulthandler.dump_traceback(all_threads=True)
                self._end(STATUS)
                return

    def _publish(self) -> None:
        """The note, whole, where the others can read it; a full disk must not end a run."""
        path = self._path(self.process)
        part = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(vars(self._note)))
            part.replace(path)
        except OSError as error:
            self._say(f"watchdog: cannot write {path} ({error.strerror})")

    def _notes(self) -> Iterator[tuple[int, Note]]:
        """Of all processes that left one; our own is the one in memory."""
        for number in range(self.processes):
            try:
                yield number, Note(**json.loads(self._path(number).read_text()))
            except (OSError, ValueError, TypeError):
                continue

    def _path(self, number: int) -> Path:
        return self.folder / f"process_{number}.json"


def verdict(notes: Mapping[int, Note], process: int, processes: int, now: float) -> str:
    """Who is furthest behind, what it was doing and for how long; and who left no note at all."""
    mine = notes.get(process)
    silence = f"{(now - mine.since) / 60:.1f} minutes" if mine else "too long"
    lines = [f"watchdog: process {process} has not got on for {silence}"]
    missing = [number for number in range(processes) if number not in notes]
    if missing:
        lines.append(f"no sign of process {', '.join(map(str, missing))}: it ended, or never came so far")
    if notes:
        last = min(note.place for note in notes.values())
        for number, note in notes.items():
            if note.place == last:
                minutes = (now - note.since) / 60
                lines.append(
                    f"process {number} hangs: phase {note.phase!r} of step {note.step:,}, {minutes:.1f} minutes"
                )
    lines.append("what each thread of this process was doing:")
    return "\n".join(lines)
