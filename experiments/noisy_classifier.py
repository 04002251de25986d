"""How well a DDAE's features know classes through noise: `python -m experiments.noisy_classifier --workdir=DIR`.

--backbone=ddae   a head that is told the noise, on the frozen net's features at ddae.tap (default)
--backbone=wrn    to compare with: a wide ResNet that is told the noise, trained from scratch on the same noise

Trains it with experiments.train, whose command line is shown, in DIR/noisy_classifier/<step>/<backbone>, then asks it
for the labels of the test split at 20 levels of noise, t = 1, 51, ..., 951 (of EDM's schedule: at all of them), each
image with one draw. Nothing is chosen by these answers. The same command goes on where it was stopped. Writes

    DIR/noisy_classifier/<step>/results.json    {backbone: {"levels", "sigma", "test", "labels", "sizes", "images"}}

and a curve of both backbones into the run's page. "test": accuracy by level, a mean over the labels; "sigma": the
noise of xt / alpha there.

--step=N          reads that checkpoint (default: the newest)
--images=N        seen in training, repetitions counted (default: 15 epochs, 200 of wrn)
--depth=28, --width=10   of wrn
--config.KEY=VALUE as for experiments.train, whose config is configs/noisy_classifier.py: --config.ddae.tap=out_7,
                  --config.train.batch=128, ...; lengths of an epoch are --config.optimizer.hold_images
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from data.sources import DataSet
from experiments import build, runs, tuning
from experiments.configs import noisy_classifier as recipe
from experiments.probing import plain_stream, print_once, shown, write_json
from experiments.runs import Run, open_trained
from soda_jax.evaluation.features import Extractor, Table
from soda_jax.evaluation.intervals import accuracy_interval
from soda_jax.parallel import processes
from soda_jax.report import exhibit
from soda_jax.report.exhibit import Curves, Exhibit
from soda_jax.report.exhibit import Table as Cells

COUNT = 20  # of levels that answers are asked for
NAMES = {"ddae": "a head on the DDAE", "wrn": "a wide ResNet from scratch"}
Found = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or that of the training where it failed."""
    return tuning.run_main(_parser(), classify, argv)


def classify(arguments: argparse.Namespace, more: Sequence[str]) -> Found:
    """Trains, asks, writes and prints. Raises what opening a run raises, and Stopped."""
    run, backbone = open_trained(arguments.workdir, arguments.step), arguments.backbone
    folder = run.workdir / "noisy_classifier" / str(run.step)
    place = f"{run.workdir}@{run.step},{backbone}"
    recipe.get_config(place)  # what is wrong with the run is told here, in a line
    given = {"train.images": arguments.images} | {
        f"noisy_classifier.{name}": getattr(arguments, name) for name in ("depth", "width")
    }
    changes = tuning.as_flags(given)
    classifier = tuning.train(f"{recipe.__file__}:{place}", folder / backbone, [*changes, *more])
    path = folder / "results.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    found[backbone] = results(classifier, found.get(backbone, {}))
    write_json(path, found)
    again = [f"--workdir={run.workdir}", f"--step={run.step}", f"--backbone={backbone}", *changes, *more]
    leave(folder, found, shlex.join(["python", "-m", "experiments.noisy_classifier", *again]))
    print_once(text(found))
    return found


def levels_of(count: int) -> list[int]:
    """Of a schedule of so many steps: all, or `COUNT` evenly spaced ones from 1 on."""
    return [*range(1, count + 1, max(1, count // COUNT))]


def results(run: Run, before: Found) -> Found:
    """What a trained classifier answers on the test split, level by level; `before`, if that was of the same."""
    c, variables = run.config, run.ema_variables()
    made_from = {"weights": runs.fingerprint(variables), "config": runs.digest(runs.plain(c))}
    if before.get("made_from") == made_from:
        print_once("the test split has answered already")
        return before
    dataset, method = build.dataset(c), run.method
    levels = levels_of(method.ddae.levels)
    ask = Extractor(
        lambda told, images: method.answers(told["variables"], images, told["level"]), ("answers",)
    )
    rows = [asked(run, dataset, ask, variables, level) for level in levels]
    logsnr = np.asarray(method.ddae.schedule.logsnr(jnp.asarray(levels) / method.ddae.levels))
    names = [*dataset.labels]
    labels = {name: [accuracy(table, place, name) for table in rows] for place, name in enumerate(names)}
    return {
        "levels": levels,
        "sigma": np.exp(-logsnr / 2).tolist(),
        "test": np.mean([[value for value, _ in labels[name]] for name in names], axis=0).tolist(),
        "labels": {
            name: {"test": [value for value, _ in row], "test_ci95": [list(interval) for _, interval in row]}
            for name, row in labels.items()
        },
        "sizes": {"train": len(dataset.split("train")), "test": len(rows[0])},
        "images": run.step * c.train.batch,
        "made_from": made_from,
    }


def asked(run: Run, dataset: DataSet, ask: Extractor, variables: Any, level: int) -> Table:
    """The answers for every test image under one draw of this level's noise."""
    c = run.config
    count = len(dataset.split("test")) * dataset.views
    told = {"variables": variables, "level": np.asarray(level, np.int32)}
    with plain_stream(dataset, "test", c, c.probe.batch) as stream:
        pieces = shown(stream, f"level {level}", -(-count // c.probe.batch), print_once)
        return ask(told, pieces, dataset.views)


def accuracy(table: Table, place: int, name: str) -> tuple[float, tuple[float, float]]:
    """Of one label, with its 95% interval."""
    right = table.features["answers"][:, place].astype(int) == table.labels[name]
    value, (low, high) = accuracy_interval(right, table.groups)
    return float(value), (float(low), float(high))


# What people see --------------------------------------------------------------------------------------------


def text(found: Mapping[str, Found]) -> str:
    """For people: a row a level, a column a backbone."""
    lines = []
    for name, block in found.items():
        sizes = block["sizes"]
        lines.append(
            f"{NAMES[name]}: {block['images']:,} images seen; accuracy of {sizes['test']:,} test images, in %"
        )
        lines += [
            f"  level {level:>4}  sigma {sigma:>9.4f}  {100 * value:5.1f}"
            for level, sigma, value in zip(block["levels"], block["sigma"], block["test"], strict=True)
        ]
    return "\n".join(lines)


def leave(folder: Path, found: Mapping[str, Found], command: str) -> None:
    """The section of the run's page. Process 0 writes it."""
    if not processes.is_main():
        return
    curve = {
        NAMES[name]: (block["levels"], [100 * v for v in block["test"]]) for name, block in found.items()
    }
    rows = [
        [
            NAMES[name],
            f"{block['images']:,}",
            *(f"{block['test'][i]:.1%}" for i in (0, len(block["test"]) // 2, -1)),
        ]
        for name, block in found.items()
    ]
    exhibit.write(
        folder,
        Exhibit(
            title="What is known of classes through noise",
            order=7,
            paragraphs=["Accuracy on the test split, each image under one draw of the level's noise."],
            tables=[Cells(head=["", "images seen", "least noise", "middle", "most"], rows=rows)],
            curves=[Curves(title="Test accuracy by noise level, %", x="level", series=curve)],
            command=command,
        ),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.noisy_classifier",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="folder of the DDAE run")
    parser.add_argument("--backbone", choices=["ddae", "wrn"], default="ddae", help="what is trained")
    parser.add_argument("--step", type=int, help="checkpoint that is read (default: the newest)")
    parser.add_argument("--images", type=int, help="seen in training (default: 15 epochs, 200 of wrn)")
    parser.add_argument("--depth", type=int, help="of wrn, 6 n + 4 (default: 28)")
    parser.add_argument("--width", type=int, help="of wrn (default: 10)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
