"""One HTML page about a run: `python -m experiments.report --workdir=DIR` writes DIR/report.html.

Reads what training, probe and sampling left in the folder; what is not there yet is said on the page. The
page holds its pictures and charts itself and fetches nothing, so the one file can be sent to anyone.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.configs import default
from experiments.runs import plain, read_config
from soda_jax.report import exhibit, page
from soda_jax.report.content import CAPTIONS, render
from soda_jax.report.figures import describe
from soda_jax.report.record import Picture, RunRecord
from soda_jax.training import checkpoints
from soda_jax.training.metrics import read_metrics

MOST_HISTORY = 4  # grids of the training's own schedule that the page keeps
MAINS = ("probe", "sample", "report")  # what is run on a folder after training


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        path = report(arguments.workdir)
    except (ValueError, OSError) as error:
        print(f"experiments.report: {error}", file=sys.stderr)
        return 1
    print(f"report written: {path}")
    return 0


def report(workdir: str | Path) -> Path:
    """Writes `workdir/report.html` and returns its path.

    Raises FileNotFoundError where the folder is no run's, ValueError where one of its files is damaged.
    """
    return page.write(Path(workdir) / "report.html", render(read(workdir)))


def read(workdir: str | Path) -> RunRecord:
    """The run as plain values."""
    folder, about = Path(workdir), read_config(Path(workdir))
    return RunRecord(
        name=str(folder),
        config=about["config"],
        default=plain(default.get_config()),
        metrics=read_metrics(folder / "metrics.jsonl"),
        saved=_saved(folder / "checkpoints", about["config"]["train"]["batch"]),
        probes=_probes(folder),
        pictures=_pictures(folder / "samples"),
        history=_history(folder / "samples"),
        exhibits=exhibit.find(folder),
        classes=about["data_info"]["labels"],
        sizes=about["data_info"]["sizes"],
        versions=about["versions"],
        commands=[
            about["command"],
            *(shlex.join(["python", "-m", f"experiments.{name}", f"--workdir={folder}"]) for name in MAINS),
        ],
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): delete it and run again what wrote it") from error


def _saved(folder: Path, batch: int) -> dict[str, float]:
    """Images and seconds of training that the newest good checkpoint has behind it; nothing where there is none."""
    step = checkpoints.newest_good(folder, say=lambda text: print(text, file=sys.stderr))
    if step is None:
        return {}
    return {"images": step * batch, "seconds": checkpoints.metadata(folder, step)["progress"]["seconds"]}


def _probes(folder: Path) -> dict[int, dict[str, Any]]:
    paths = {int(p.parent.name): p for p in folder.glob("probe/*/results.json") if p.parent.name.isdigit()}
    return {step: _json(paths[step]) for step in sorted(paths)}


def _pictures(folder: Path) -> dict[str, Picture]:
    """The newest of each kind that `experiments.sample` writes."""
    found = {}
    for kind in CAPTIONS:
        paths = sorted(folder.glob(f"*_{kind}.png"), key=step_of)
        if paths:
            found[kind] = _picture(paths[-1])
    return found


def _history(folder: Path) -> dict[str, Picture]:
    """Some of the grids drawn while training, oldest first."""
    paths = sorted(folder.glob("step_*.png"), key=step_of)
    return {f"step {step_of(path)}": _picture(path) for path in spread(paths, MOST_HISTORY)}


def spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many, evenly spaced, the first and the last among them."""
    few = min(most, len(paths))
    return [paths[round(i * (len(paths) - 1) / max(1, few - 1))] for i in range(few)]


def _picture(path: Path) -> Picture:
    return Picture(png=path.read_bytes(), description=describe(path))


def step_of(path: Path) -> int:
    """The number in a picture's name."""
    digits = re.search(r"\d+", path.stem)
    return int(digits.group()) if digits else -1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
