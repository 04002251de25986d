"""What each part of SODA does: the quickstart's recipe, with masks, on views3d with one thing changed, at equal budget.

    python -m experiments.benchmarks.ablations --out=DIR [--minutes=2] [--seeds=0,1] [--only=base,same_view]

Trains, probes and paints novel views with the public mains, one run after the other, each in DIR/<variant>_<seed>.
What is done already is found, so that it can be stopped and started; other --minutes need another --out. Prints the
table of all that is there: for each variant the mean over its seeds and, where there are several, how far the
outermost lie from it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.trials import cell, results_of, run_trials, seeds, some_of
from experiments.configs import quickstart as recipe
from experiments.quickstart import Stage, minutes, trained

CONFIG = "experiments/configs/quickstart.py:masked"
IMAGES_PER_MINUTE = 8_192  # fewer than the quickstart's: the probe and the views take time too
# One thing changed of the recipe, which has: a section for each skip, masking, two cameras, the linear schedule.
VARIANTS: dict[str, Mapping[str, Any]] = {
    "base": {},
    "per_level": {"model.grouping": "per_level"},
    "whole": {"model.grouping": "whole"},
    "no_section_mask": {"model.mask_section": 0.0},
    "same_view": {"data.pair": "same"},
    "cosine": {"diffusion.schedule": "cosine"},
    "inverted": {"diffusion.schedule": "inverted"},
    "consistency": {"model.consistency": 0.001},
    "joint_prior": {"model.joint_prior": 0.01, "prior.loss": "l2", "prior.layers": 4, "prior.width": 256},
    "resampled": {"diffusion.noise_levels": "resampled"},
    "learned": {"diffusion.noise_levels": "learned"},
}
PROBE = ("--tasks=linear,knn,dci", "--config.probe.images=100000", "--config.probe.max_train=4096")
VIEWS = ("--mode=novel_views", "--regressor=none", "--scenes=32", "--samples=4")
# Columns: head, and how it is read from what the probe and the novel views leave.
COLUMNS: dict[str, Callable[[Mapping, Mapping], float]] = {
    "shape, z (%)": lambda probed, _: 100 * probed["labels"]["shape"]["z"]["linear"],
    "size, z (%)": lambda probed, _: 100 * probed["labels"]["size"]["z"]["linear"],
    "all 6 labels, z (%)": lambda probed, _: (
        100 * float(np.mean([label["z"]["linear"] for label in probed["labels"].values()]))
    ),
    "D": lambda probed, _: probed["dci"]["z"]["disentanglement"],
    "C": lambda probed, _: probed["dci"]["z"]["completeness"],
    "I": lambda probed, _: probed["dci"]["z"]["informativeness"],
    "PSNR, mean of 4 (dB)": lambda _, seen: seen["psnr"],
    "PSNR, one (dB)": lambda _, seen: seen["one_sample"]["psnr"],
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run."""

    variant: str
    seed: int
    minutes: float
    workdir: Path

    @property
    def images(self) -> int:
        """That it is trained on."""
        return round(self.minutes * IMAGES_PER_MINUTE)

    @property
    def step(self) -> int:
        """The last."""
        return -(-self.images // recipe.get_config("masked").train.batch)

    def phases(self) -> list[list[Stage]]:
        """The mains, in order; each finds by itself what it has done before."""
        where = f"--workdir={self.workdir}"
        changes = [f"--config.{key}={value}" for key, value in VARIANTS[self.variant].items()]
        length = (f"--config.seed={self.seed}", f"--config.train.images={self.images}")
        train = ("experiments.train", f"--config={CONFIG}", where, *length, *changes)
        stages = [
            Stage(name="train", command=train, found=lambda: trained(self.workdir, self.step), promises=True),
            Stage(name="probe", command=("experiments.probe", where, *PROBE)),
            Stage(name="sample", command=("experiments.sample", where, *VIEWS)),
        ]
        return [stages]

    def figures(self) -> list[float] | None:
        """A number a column; None where the run is not through."""
        probed, seen = (results_of(self.workdir / kind / str(self.step)) for kind in ("probe", "novel_views"))
        if probed is None or seen is None:
            return None
        return [read(probed, seen) for read in COLUMNS.values()] if "dci" in probed else None


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or that of the main that failed."""
    arguments = _parser().parse_args(argv)
    todo = trials(arguments.out, arguments.minutes, arguments.seeds, arguments.only)
    status = run_trials(todo, "experiments.benchmarks.ablations")
    if status:
        return status
    print("\n".join(table(todo)))
    return 0


def trials(out: Path, minutes: float, seeds: Sequence[int], variants: Sequence[str]) -> list[Trial]:
    """Seed after seed, so that what is stopped early has all variants of some seeds."""
    return [
        Trial(variant=variant, seed=seed, minutes=minutes, workdir=out / f"{variant}_{seed}")
        for seed in seeds
        for variant in variants
    ]


def table(done: Sequence[Trial]) -> Iterator[str]:
    """In Markdown, a row a variant."""
    yield f"| changed | seeds | {' | '.join(COLUMNS)} |"
    yield "|---|---|" + "---|" * len(COLUMNS)
    for variant in dict.fromkeys(trial.variant for trial in done):
        rows = [trial.figures() for trial in done if trial.variant == variant]
        found = np.array([row for row in rows if row is not None])
        if len(found):
            words = ", ".join(f"{key}={value}" for key, value in VARIANTS[variant].items())
            yield f"| {words or 'nothing'} | {len(found)} | {' | '.join(map(cell, found.T))} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--minutes", type=minutes, default=2.0, help="of training, about, on 2 cores")
    parser.add_argument("--seeds", type=seeds, default=[0, 1], help="default: 0,1")
    parser.add_argument(
        "--only", type=some_of(VARIANTS), default=list(VARIANTS), help=f"of {', '.join(VARIANTS)}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
