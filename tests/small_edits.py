"""A small run to edit, and what every mode of editing leaves."""

import json
from pathlib import Path

from soda_jax.report import exhibit
from tests import small_run


def write(folder: Path) -> Path:
    """A run with one checkpoint that samples in 2 steps."""
    small_run.write(folder, steps=(4,))
    config = json.loads((folder / "config.json").read_text())
    config["config"]["samples"]["steps"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def arguments(workdir: Path, mode: str, *more: str) -> list[str]:
    """Few images, and a judge that has hardly been trained."""
    numbers = ["--images=5", "--count=2", "--fit=40", "--judge_images=128"]
    return [f"--workdir={workdir}", f"--mode={mode}", *numbers, *more]


def results(workdir: Path, mode: str) -> dict:
    return json.loads((workdir / "edit" / mode / "results.json").read_text())


def check(workdir: Path, mode: str) -> None:
    """Pictures, measures and an exhibit are there and fit together."""
    folder, found = workdir / "edit" / mode, results(workdir, mode)
    assert found["step"] == 4 and found["measures"]
    assert found["files"] and all((folder / name).stat().st_size > 1000 for name in found["files"])
    shown = exhibit.read(folder)
    assert set(shown.pictures) == {name for name in found["files"] if name.endswith(".png")}
    assert "5 test images, never trained on; DDIM in 2 steps; seed 0" in shown.exhibit.paragraphs[-1]
    assert exhibit.render(shown).count("<img") == len(shown.pictures)
