"""Trains a head for pixels or points on a run: `python -m experiments.dense --workdir=DIR --task=segmentation`.

Its encoder (a DDAE's net up to its tap, on clean images) gets a head (BiSeNet's, or heat maps), and both are trained on
the training split of a data set with masks or keypoints, by experiments.train, whose command line is shown, in
DIR/dense/<task>/<step>/<name>; then the averaged networks answer for the test split, once. The same command goes on
where it was stopped. Writes results.json and test.png (image | truth | found) there, and into DIR/dense/<task>/<step>
those of the last one that was done:

    segmentation {"miou", "miou_without_background", "accuracy", "iou": {class: IoU}, ...}
    landmarks    {"nme", "nme_in_sight", "failure", "auc", "points": {point: error}, ...}

each with its 95% interval over scenes, "..._ci95"; defined in soda_jax/evaluation/segmentation.py and landmarks.py.

--task=TASK       segmentation | landmarks
--step=N          begins with that checkpoint (default: the newest)
--start=scratch   the same networks and recipe from fresh parameters, to compare with
--frozen          trains the head alone
--fraction=F      of the training examples (default: 1)
--images=N        that are seen in training, repetitions counted (default: 50,000)
--data=NAME       a data set with masks or keypoints (default: that of the run)
--name=NAME       of the folder (default: by the above)
--config.KEY=VALUE as for experiments.train, whose config is configs/dense.py: --config.dense.stride=4, ...
"""

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dense import TASKS, info_of, truth, with_truth
from data.sources import DataSet
from experiments import build, runs, tuning
from experiments.configs import dense as dense_config
from experiments.finetune import name_of
from experiments.job import flags_of
from experiments.probing import plain_stream, print_once, shown, write_json
from experiments.runs import Run, open_trained
from soda_jax.evaluation import landmarks, segmentation
from soda_jax.evaluation.features import Rows
from soda_jax.methods.dense import Dense
from soda_jax.parallel import processes
from soda_jax.report.figures import save_grid
from soda_jax.report.overlays import dotted, painted
from soda_jax.types import Batch, Tree

CONFIG = dense_config.__file__
PICTURES = 8  # rows of the picture
UNITS = {"miou": 100, "miou_without_background": 100, "accuracy": 100, "nme": 100, "nme_in_sight": 100}
UNITS |= {"failure": 100, "auc": 100}  # shown in %


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or that of the training where it failed."""
    return tuning.run_main(_parser(), dense, argv)


def dense(arguments: argparse.Namespace, more: Sequence[str]) -> dict[str, Any]:
    """Trains, measures, writes and prints. Raises what opening a run or a data set raises, and Stopped."""
    run = open_trained(arguments.workdir, arguments.step)
    folder = run.workdir / "dense" / arguments.task / str(run.step) / (arguments.name or folder_of(arguments))
    flags = [*changes(run, arguments), *more]
    tuned = tuning.train(f"{CONFIG}:{run.workdir}@{run.step}", folder, flags)
    found, columns = results(tuned), picture(tuned)
    for where in (folder, folder.parent):
        write_json(where / "results.json", found)
        if processes.is_main():
            save_grid(where / "test.png", columns, side=192, description=text(found))
    print_once(text(found))
    return found


def changes(run: Run, arguments: argparse.Namespace) -> list[str]:
    """What the command line says, and what the data set has, as keys. DataError where it has no such truth."""
    with run.config.unlocked():
        run.config.data.name = arguments.data or run.config.data.name
    info = info_of(with_truth(build.whole_dataset(run.config), arguments.task))
    given = {
        "data.name": arguments.data or None,
        "finetune.fraction": arguments.fraction,
        "finetune.start": arguments.start,
    }
    given |= {
        "train.images": arguments.images,
        "dense.task": arguments.task,
        "dense.frozen": arguments.frozen or None,
        "dense.mirror": 0.0 if info.sided and arguments.task == "segmentation" else None,
    }
    given |= {f"dense.{key}": value for key, value in flags_of(info).items()}
    return tuning.as_flags(given)


def folder_of(arguments: argparse.Namespace) -> str:
    """fraction_1, frozen_fraction_0.1_scratch, ..., after the data set where that is another than the run's."""
    parts = [arguments.data.replace("/", "_").replace(":", "_")] if arguments.data else []
    parts += ["frozen"] if arguments.frozen else []
    plain = argparse.Namespace(**{**vars(arguments), "shots": None})
    return "_".join([*parts, name_of(plain)])


# What it finds ---------------------------------------------------------------------------------------------


def results(run: Run) -> dict[str, Any]:
    """How well the averaged networks of a trained run answer for the test split."""
    c, dataset = run.config, build.dataset(run.config)
    variables, info = run.ema_variables(), info_of(dataset)
    count = len(dataset.split("test")) * dataset.views
    with test_stream(run, dataset) as stream:
        pieces = shown(stream, "answering test", -(-count // c.probe.batch), print_once)
        whole = Rows(functools.partial(judged, run.method)).whole(variables, pieces)
    examples, groups = len(dataset.split("train")), whole["index"] // dataset.views
    about = {
        "task": c.dense.task,
        "data": dataset.name,
        "start": c.finetune.start,
        "frozen": c.dense.frozen,
        "fraction": examples / len(build.whole_dataset(c).split("train")),
        "sizes": {"train": examples, "test": len(whole["index"])},
        "images": run.step * c.train.batch,
        "made_from": {"weights": runs.fingerprint(variables), "config": runs.digest(runs.plain(c))},
    }
    if c.dense.task == "segmentation":
        return about | segmentation.measure(whole["counts"], groups, info.classes)
    points = [whole[name] for name in ("found", "points", "seen", "scale")]
    return about | {"divided_by": info.scale} | landmarks.measure(*points, groups, info.points)


def test_stream(run: Run, dataset: DataSet, images: np.ndarray | None = None, batch: int = 0) -> Any:
    """Images of the test split (None: all) with their truth."""
    known = functools.partial(truth, size=run.config.data.source_size)
    return plain_stream(dataset, "test", run.config, batch or run.config.probe.batch, images, beside=known)


def judged(method: Dense, variables: Tree, batch: Batch) -> Batch:
    """What is kept of a batch: counts of pixels, or points that were found beside the true ones."""
    found, kept = method.predict(variables, batch["image"]), ("index", "valid")
    if method.task == "segmentation":
        made = {"counts": segmentation.confusion(batch["mask"], found, method.head.classes)}
    else:
        kept, made = (*kept, "points", "seen", "scale"), {"found": found}
    return {**made, **{name: batch[name] for name in kept}}


def picture(run: Run) -> list[tuple[str, np.ndarray]]:
    """image | truth | found, of scenes of the test split."""
    dataset, method = build.dataset(run.config), run.method
    scenes = len(dataset.split("test"))
    chosen = np.unique(np.linspace(0, scenes - 1, PICTURES).astype(int)) * dataset.views
    devices = processes.process_count()
    with test_stream(run, dataset, chosen, batch=-(-len(chosen) // devices) * devices) as stream:
        rows = Rows(lambda variables, batch: {**batch, "found": method.predict(variables, batch["image"])})
        whole = rows.whole(run.ema_variables(), stream)
    return [("image", enlarged(whole["image"], method)), *answers(whole, method)]


def enlarged(images: np.ndarray, method: Dense) -> np.ndarray:
    """As large as those beside them."""
    if method.task == "segmentation":
        return images
    return dotted(images, np.zeros((len(images), 1, 2), np.float32), np.zeros((len(images), 1), bool))


def answers(whole: Mapping[str, np.ndarray], method: Dense) -> list[tuple[str, np.ndarray]]:
    """The columns of truth and of what was found."""
    images = whole["image"]
    if method.task == "segmentation":
        return [
            (name, painted(images, whole[key], method.head.classes))
            for name, key in (("truth", "mask"), ("found",) * 2)
        ]
    labelled = whole["seen"] > 0
    return [
        (name, dotted(images, whole[key], labelled)) for name, key in (("truth", "points"), ("found",) * 2)
    ]


def text(found: Mapping[str, Any]) -> str:
    """For people."""
    start = {"trained": "on the run's encoder", "scratch": "from scratch"}[found["start"]]
    frozen = ", which is frozen" if found["frozen"] else ""
    sizes = found["sizes"]
    lines = [
        f"{found['task']} {start}{frozen}: {sizes['train']:,} examples of {found['data']} ({found['fraction']:.2%}), "
        f"{found['images']:,} images seen; in % [95% interval over scenes] of {sizes['test']:,} test images"
    ]
    for name, unit in UNITS.items():
        if name in found:
            low, high = found[f"{name}_ci95"]
            lines.append(f"  {name}: {found[name] * unit:.2f} [{low * unit:.2f}, {high * unit:.2f}]")
    each = found.get("iou") or found["points"]
    lines.append(
        "  " + ", ".join(f"{name} {'-' if x is None else f'{100 * x:.2f}'}" for name, x in each.items())
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.dense",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--step", type=int, help="checkpoint to begin with (default: the newest)")
    parser.add_argument("--start", choices=["trained", "scratch"], help="default: trained")
    parser.add_argument("--frozen", action="store_true", help="train the head alone")
    parser.add_argument("--fraction", type=float, help="of the training examples (default: 1)")
    parser.add_argument("--images", type=int, help="seen in training (default: 50,000)")
    parser.add_argument(
        "--data", default="", metavar="NAME", help="with masks or keypoints (default: the run's)"
    )
    parser.add_argument("--name", default="", help="of the folder of this training")
    return parser


if __name__ == "__main__":
    sys.exit(main())
