"""Where the numbers of a run go: `metrics.jsonl` (a JSON object a line) and TensorBoard; process 0 only."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from soda_jax.parallel.processes import is_main

Record = Mapping[str, Any]


class MetricWriter:
    """Writes records as they come; each line is on disk when `write` returns."""

    def __init__(self, workdir: str | Path, *, after_step: int = 0, main: bool | None = None):
        """after_step: the step that the run goes on from; what was written for later steps is dropped."""
        self._file = self._board = None
        if not (is_main() if main is None else main):
            return
        path = Path(workdir) / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        keep_until(path, after_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = open_board(path.parent / "tensorboard", after_step)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.close()

    def write(self, record: Record) -> None:
        """One record; `step` must be in it. Numbers become scalars of TensorBoard."""
        if self._file is None:
            return
        self._file.write(json.dumps(finite(record)) + "\n")
        self._file.flush()
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes and closes both."""
        for sink in (self._file, self._board):
            if sink is not None:
                sink.close()
        self._file = self._board = None


def append_record(workdir: str | Path, record: Record) -> None:
    """One line about something out of turn, such as an error; process 0 only. A full disk is no reason to end."""
    if not is_main():
        return
    with contextlib.suppress(OSError), (Path(workdir) / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(record)) + "\n")


def open_board(folder: Path, after_step: int) -> Any:
    """TensorBoard's writer; what it has of later steps is hidden."""
    with torch_hidden():
        from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), purge_step=after_step + 1)


@contextlib.contextmanager
def torch_hidden() -> Iterator[None]:
    """tensorboardX would load PyTorch wherever it is installed: seconds, for nothing that is used here."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # importing it raises ImportError, which tensorboardX expects
    try:
        yield
    finally:
        del sys.modules["torch"]


def finite(record: Record) -> dict[str, Any]:
    """JSON knows neither NaN nor infinity: they become null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that a killed process left unfinished is left out."""
    path = Path(path)
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def keep_until(path: str | Path, step: int) -> None:
    """Drops what lies beyond a step: the run will write it again."""
    path = Path(path)
    if not path.exists():
        return
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    part.replace(path)
