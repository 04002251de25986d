"""The table of experiments/README.md: soda_imagenet compiled for slices that are not there.

    python -m experiments.benchmarks.pod_table --out=DIR [--images=16]

One compilation after the other, each of many minutes; each leaves DIR/<row>.json, and what is there already is not
compiled again, so that it can be stopped and started. Prints the table of all rows that are there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from soda_jax.training.chips import GIB

CONFIG = "experiments/configs/soda_imagenet.py"
TOPOLOGIES = ("v5e:4x4", "v5e:16x16", "v5p:2x2x2")
DOES_NOT_FIT = 2  # exit status of experiments.compile
HEADER = (
    "| target | slice | mesh | memory of a chip | FLOPs / count | sent / least | bound | compile |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compilation: pixels of the target, slice, images a chip."""

    target: str
    topology: str
    images: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.target}px_{self.topology.replace(':', '_')}_{self.images}"

    def command(self, out: Path) -> list[str]:
        """Without remat, for work that is done again is not the model's."""
        chips = prod(int(side) for side in self.topology.partition(":")[2].split("x"))
        main = [sys.executable, "-m", "experiments.compile", f"--config={CONFIG}:{self.target}"]
        flags = [f"--topology={self.topology}", f"--out={out}", "--config.model.remat=none"]
        return [*main, *flags, f"--config.train.batch={self.images * chips}"]


def rows(images: int) -> list[Row]:
    """All there are."""
    return [Row(target=t, topology=topology, images=images) for topology in TOPOLOGIES for t in ("64", "128")]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if a compilation failed (to not fit is no failure)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16, help="images a chip and step")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for row in rows(arguments.images):
        path = arguments.out / f"{row.name}.json"
        if not path.exists() and subprocess.run(row.command(path)).returncode not in (0, DOES_NOT_FIT):
            return 1
    print("\n".join([*HEADER, *lines(arguments.out, arguments.images)]))
    return 0


def lines(folder: Path, images: int) -> Iterator[str]:
    """Of the rows that are there."""
    for row in rows(images):
        path = folder / f"{row.name}.json"
        if path.exists():
            yield line(row, json.loads(path.read_text()))


def line(row: Row, found: Mapping[str, Any]) -> str:
    """One row in Markdown; "-" for what a program that does not fit does not tell."""
    mesh = " x ".join(str(size) for size in found["mesh"].values())
    memory = f"{found['hbm_peak_bytes'] / GIB:.2f} of {found['hbm_bytes'] / GIB:.0f} GiB"
    cells = [f"{row.target} px", row.topology, mesh, memory + ("" if found["fits"] else ", does not fit")]
    if found["roofline"]:
        cells.append(f"{found['hlo_flops'] / found['model_flops']:.3f}")
        cells.append(f"{found['collective_bytes'] / found['collective_bytes_least']:.3f}")
        cells.append(f"{found['roofline']['limit']}, MFU <= {found['roofline']['mfu']:.0%}")
    else:
        cells += ["-"] * 3
    return f"| {' | '.join([*cells, str(round(found['compile_seconds'])) + ' s'])} |"


if __name__ == "__main__":
    sys.exit(main())
