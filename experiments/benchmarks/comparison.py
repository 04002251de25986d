r"""The one table: every method on the same data, in the same time, before the same probe.

    python -m experiments.benchmarks.comparison --data=fashion_mnist --out=DIR
    python -m experiments.benchmarks.comparison --data=views3d --seeds=0 --out=DIR
    python -m experiments.benchmarks.comparison --only=ddae,repfusion,repfusion_uniform,repfusion_fixed --seeds=0,1,2 \
        --out=DIR

The last holds RepFusion's choices of the time against each other and against the same student from scratch.
Trains, probes and fine-tunes with the public mains, one run after the other, each in DIR/<data>_<method>_<seed>. What
is done already is found, so that it can be stopped and started; another --minutes needs another --out. Prints the table
of all that is there: means over seeds and, where there are several, how far the outermost lie from them.

The time of a method is counted in images, as many as the IMAGES of its entry say, so that other work beside does not
change the table. A RepFusion student has a teacher, the DDAE of the table, whose time comes on top. DDAE's layer and
noise level are chosen by `probe --grid` on held-out training images. The rows "untrained" and "pixels" are of the
probe of SODA (or of RepFusion, where it is left out), and of fine-tuning its encoder from scratch.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.builders.views3d import FACTORS
from experiments import runs
from experiments.benchmarks.trials import cell, results_of, run_trials, seeds, some_of, spent
from experiments.quickstart import Stage, minutes, trained

SODA = {"fashion_mnist": "soda_fashion_mnist.py", "views3d": "quickstart.py:masked"}
# Fashion-MNIST's recipes turned to views3d: two cameras on a scene are the two views, before the quickstart's encoder.
SCENES = {"data.name": "views3d", "data.channels": 3, "data.pair": "pose"}
SCENES |= {"data.source_size": 64, "data.image_size": 64}
SCENES |= {"model.encoder_width": 24, "model.latent_dim": 504, "model.source_noise": 0.05}
SMALL = {**SCENES, "data.source_size": 32}  # what a DDAE sees, and so its student, is what SODA paints
SMALL |= {"data.image_size": 32}
CLASSES = {"supervised.classes": tuple(len(FACTORS[name]) for name in sorted(FACTORS))}
PROBE = ("--config.probe.max_train=20000", "--config.probe.images=300000")
PARTS = ("0.01", "0.1")  # of the labels, in fine-tuning
TUNING = "--images=20000"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a method is trained; images: that it sees in a minute on one core (Zen 4, nothing else running); by data set.

    Those of views3d were measured in a row on a slower core, and scaled by 2.5, as Fashion-MNIST's come out there.
    """

    config: str  # "": SODA's
    images: Mapping[str, int]
    changes: Mapping[str, Any]
    scenes: Mapping[str, Any]  # further changes, for views3d


def two_views(method: str, fashion_mnist: int, views3d: int, **scenes: Any) -> Entry:
    """On the recipe that the methods of two views share."""
    images = {"fashion_mnist": fashion_mnist, "views3d": views3d}
    changes = {"method": method}
    return Entry(
        config="siamese_fashion_mnist.py", images=images, changes=changes, scenes={**SCENES, **scenes}
    )


def student(time: str) -> Entry:
    """Of the DDAE with the same seed, asked for such times."""
    images = {"fashion_mnist": 14_400, "views3d": 21_000}
    config, changes = "repfusion_fashion_mnist.py:{teacher}", {"repfusion.time": time}
    return Entry(config=config, images=images, changes=changes, scenes={**SMALL, **CLASSES})


ENTRIES = {
    "soda": Entry(config="", images={"fashion_mnist": 11_600, "views3d": 8_400}, changes={}, scenes={}),
    "ddae": Entry(
        config="ddae_fashion_mnist.py",
        images={"fashion_mnist": 3_100, "views3d": 2_700},
        changes={},
        scenes=SMALL,
    ),
    "repfusion": student("rl"),
    "repfusion_uniform": student("uniform"),
    "repfusion_fixed": student("fixed"),
    "simclr": two_views("simclr", 13_400, 13_500),
    "byol": two_views("byol", 11_800, 12_300),
    "vicreg": two_views("vicreg", 14_800, 12_600),
    "autoencoder": Entry(
        config="",
        images={"fashion_mnist": 12_200, "views3d": 8_300},
        changes={"method": "autoencoder"},
        scenes={"model.rays": "none"},
    ),
    "supervised": two_views("supervised", 28_000, 28_000, **CLASSES),
}


USUAL = [name for name in ENTRIES if name not in ("repfusion_uniform", "repfusion_fixed")]
FROM_SCRATCH = ("soda", "repfusion")  # whose networks are also fine-tuned from fresh parameters


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a method on a data set."""

    data: str
    method: str
    seed: int
    minutes: float
    out: Path

    @property
    def workdir(self) -> Path:
        """Of the run."""
        return self.beside(self.method)

    def beside(self, method: str) -> Path:
        """The workdir of another method with the same seed."""
        return self.out / f"{self.data}_{method}_{self.seed}"

    @property
    def images(self) -> int:
        """That it is trained on."""
        return round(self.minutes * ENTRIES[self.method].images[self.data])

    @property
    def step(self) -> int:
        """The last of the training, by the run's own config; 0 where there is no run yet."""
        if not (self.workdir / "config.json").is_file():
            return 0
        return -(-self.images // runs.read_config(self.workdir)["config"]["train"]["batch"])

    @property
    def tunings(self) -> dict[str, tuple[str, ...]]:
        """Flags of the fine-tunings, by the names of their folders."""
        found = {f"fraction_{part}": (f"--fraction={part}",) for part in PARTS}
        if self.method in FROM_SCRATCH:
            scratch = {f"{name}_scratch": (*flags, "--start=scratch") for name, flags in found.items()}
            found |= scratch
        return found

    def phases(self) -> Iterator[list[Stage]]:
        """The mains, in order. Where a DDAE is read is known once its grid is there."""
        where = f"--workdir={self.workdir}"
        yield [Stage(name="train", command=self.training(), found=self.done, promises=True)]
        if self.method == "ddae":
            yield [Stage(name="grid", command=("experiments.probe", where, "--grid", *PROBE))]
        place = self.place()
        tune = ("experiments.finetune", where, TUNING, *place)
        yield [
            Stage(name="probe", command=("experiments.probe", where, *PROBE, *place)),
            *(Stage(name=name, command=(*tune, *flags)) for name, flags in self.tunings.items()),
        ]

    def training(self) -> tuple[str, ...]:
        """The command."""
        entry = ENTRIES[self.method]
        config = (entry.config or SODA[self.data]).format(teacher=self.beside("ddae"))
        changes = {**entry.changes, **(entry.scenes if self.data == "views3d" else {})}
        changes |= {"seed": self.seed, "train.images": self.images}
        more = (f"--config.{key}={value}" for key, value in changes.items())
        place = f"--config=experiments/configs/{config}"
        return ("experiments.train", place, f"--workdir={self.workdir}", *more)

    def done(self) -> str:
        """In words, when the training is."""
        return trained(self.workdir, self.step) if self.step else ""

    def place(self) -> tuple[str, ...]:
        """Flags that say where a DDAE is read."""
        found = results_of(self.workdir / "probe_grid" / str(self.step))
        if found is None:
            return ()
        chosen = found["chosen"]
        return (f"--config.ddae.tap={chosen['layer']}", f"--config.ddae.level={chosen['noise']}")

    def figures(self) -> dict[str, Any] | None:
        """What the mains have left, by folder; None where one has not."""
        tuned = self.workdir / "finetune" / str(self.step)
        found = {name: results_of(tuned / name) for name in self.tunings}
        found["probe"] = results_of(self.workdir / "probe" / str(self.step))
        return None if None in found.values() else {**found, "minutes": spent(self.workdir) / 60}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or that of the main that failed."""
    a = _parser().parse_args(argv)
    todo = [
        Trial(data=a.data, method=method, seed=seed, minutes=a.minutes, out=a.out)
        for seed in a.seeds
        for method in a.only
    ]
    status = run_trials(todo, "experiments.benchmarks.comparison")
    if status:
        return status
    print("\n".join(table(todo)))
    return 0


# The table --------------------------------------------------------------------------------------------------

Found = Sequence[Mapping[str, Any]]  # `figures` of each seed


def table(done: Sequence[Trial]) -> Iterator[str]:
    """In Markdown, a row a method; in percent."""
    there: dict[str, list[Mapping[str, Any]]] = {}
    for trial in done:
        if (found := trial.figures()) is not None:
            there.setdefault(trial.method, []).append(found)
    if not there:
        return
    labels = list(next(iter(there.values()))[0]["probe"]["labels"])
    yield f"| method | images | CPU min | {' | '.join(labels)} | k-NN | 1% | 10% |"
    yield "|---" * (6 + len(labels)) + "|"
    for method, found in there.items():
        images = next(trial.images for trial in done if trial.method == method)
        kinds = ("z",) if method == "ddae" or "repfusion" in method else ("z", "pooled")
        head = f"{method} | {images:,} | {cell([f['minutes'] for f in found])}"
        yield row(head, labels, found, kinds, "")
    if fresh := next((there[method] for method in FROM_SCRATCH if method in there), None):
        yield row("untrained, from scratch | |", labels, fresh, ("untrained",), "_scratch")
        yield row("pixels | |", labels, fresh, ("pixels",), None)


def row(head: str, labels: Sequence[str], found: Found, kinds: Sequence[str], start: str | None) -> str:
    """start: end of the names of the fine-tunings' folders; None: there are none."""

    def probed(label: str, score: str) -> str:
        return " / ".join(
            percent([f["probe"]["labels"][label][kind][score] for f in found]) for kind in kinds
        )

    def nearest(kind: str) -> list[float]:
        return [mean([f["probe"]["labels"][label][kind]["knn"] for label in labels]) for f in found]

    cells = [probed(label, "linear") for label in labels]
    cells.append(" / ".join(percent(nearest(kind)) for kind in kinds))
    tuned = [
        "" if start is None else percent([f[f"fraction_{part}{start}"]["test"] for f in found])
        for part in PARTS
    ]
    return f"| {' | '.join([head, *cells, *tuned])} |"


def percent(values: Sequence[float]) -> str:
    """`cell` of shares."""
    return cell([100 * value for value in values])


def mean(values: Sequence[float]) -> float:
    """Of a label each."""
    return sum(values) / len(values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", choices=list(SODA), default="fashion_mnist", help="default: fashion_mnist")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--minutes", type=minutes, default=10.0, help="CPU minutes of training (default: 10)")
    parser.add_argument("--seeds", type=seeds, default=[0, 1], help="default: 0,1")
    parser.add_argument("--only", type=some_of(ENTRIES), default=USUAL, help=f"of {', '.join(ENTRIES)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
