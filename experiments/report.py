"""One HTML page about a run: `python -m experiments.report --workdir=DIR` writes DIR/report.html.

Reads what training, probe and sampling left in the folder; what is not there yet is said on the page. The
page holds its pictures and charts itself and fetches nothing, so the one file can be sent to anyone.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.configs import default
from soda_jax.report import page
from soda_jax.report.content import CAPTIONS, render
from soda_jax.report.figures import describe
from soda_jax.report.record import Picture, RunRecord

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to report on.")
MOST_HISTORY = 4  # grids of the training's own schedule that the page keeps


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, found {argv[1:]}")
    print(f"report written: {report(WORKDIR.value)}")


def report(workdir: str | Path) -> Path:
    """Writes `workdir/report.html` and returns its path.

    Raises FileNotFoundError where the folder is no run's, ValueError where one of its files is damaged.
    """
    return page.write(Path(workdir) / "report.html", render(read(workdir)))


def read(workdir: str | Path) -> RunRecord:
    """The run as plain values."""
    folder, about = Path(workdir), _about(Path(workdir))
    probes = _probes(folder)
    info = about.get("data_info") or {}
    return RunRecord(
        name=str(workdir).rstrip("/"),
        config=about["config"],
        default=default.get_config().to_dict(),
        metrics=metric_rows(folder / "metrics.jsonl"),
        probes=probes,
        pictures=_pictures(folder / "samples"),
        history=_history(folder / "samples"),
        classes=info.get("labels", {}),
        sizes=info.get("sizes", {}),
        versions=about.get("versions") or {},
        commands=_commands(about, folder),
    )


def metric_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. Of lines about one step again (a run resumed) the later counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        row = _row(path, number, line, whole=number < len(lines))
        while row and rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        rows += [row] if row else []
    return rows


def _row(path: Path, number: int, line: str, whole: bool) -> dict[str, Any]:
    """One line; the last one may be cut short, where a run was killed in the middle of it."""
    try:
        return json.loads(line)
    except ValueError as error:
        if not whole:
            return {}
        raise ValueError(f"{path}: line {number} is not JSON ({error}); delete that line") from error


def _about(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"expected a run's config.json in {folder}, found none: check --workdir")
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): delete it and run again what wrote it") from error


def _probes(folder: Path) -> dict[int, dict[str, Any]]:
    paths = {int(p.parent.name): p for p in folder.glob("probe/*/results.json") if p.parent.name.isdigit()}
    return {step: _json(paths[step]) for step in sorted(paths)}


def _pictures(folder: Path) -> dict[str, Picture]:
    """The newest of each kind that `experiments.sample` writes."""
    found = {}
    for kind in CAPTIONS:
        paths = sorted(folder.glob(f"*_{kind}.png"), key=_step)
        if paths:
            found[kind] = _picture(paths[-1])
    return found


def _history(folder: Path) -> dict[str, Picture]:
    """Some of the grids drawn while training, evenly spaced, the first and the last among them."""
    paths = sorted((p for p in folder.glob("*.png") if re.fullmatch(r"\d+", p.stem)), key=_step)
    few = min(MOST_HISTORY, len(paths))
    chosen = [paths[round(i * (len(paths) - 1) / max(1, few - 1))] for i in range(few)]
    return {f"step {_step(path)}": _picture(path) for path in chosen}


def _picture(path: Path) -> Picture:
    return Picture(png=path.read_bytes(), description=describe(path))


def _step(path: Path) -> int:
    digits = re.match(r"\d+", path.stem)
    return int(digits.group()) if digits else -1


def _commands(about: Mapping[str, Any], folder: Path) -> list[str]:
    """How the run was trained, and how the rest is made from its folder."""
    trained = about.get("command") or []
    first = trained if isinstance(trained, str) else " ".join(trained)
    return [
        line for line in (first, *(f"python -m experiments.{m} --workdir={folder}" for m in MAINS)) if line
    ]


MAINS = ("probe", "sample", "report")

if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
