"""Fine-tunes a trained run on a part of the labels: `python -m experiments.finetune --workdir=DIR --fraction=0.1`.

Trains its encoder (a DDAE's net up to its tap, on clean images) and a head for each label with experiments.train, whose
command line is shown, in DIR/finetune/<step>/<name>, then asks the averaged networks for the labels of the test split,
once. The same command goes on where it was stopped. Writes DIR/finetune/<step>/<name>/results.json, and the same to
DIR/finetune/<step>/results.json, of the last one that was done:

    {"fraction", "test": accuracy, a mean over the labels, "labels": {name: {"test", "test_ci95"}}, ...}

--step=N          begins with that checkpoint (default: the newest)
--fraction=F      of the training examples, 0.01 for 1% (default: 1); --shots=N: of each class, instead
--start=scratch   the same networks and recipe from fresh parameters, to compare with
--images=N        that are seen in training, repetitions counted (default: 100,000)
--name=NAME       of the folder (default: by the above)
--config.KEY=VALUE as for experiments.train, whose config is configs/finetune.py: --config.finetune.layer_decay=0.9,
                  --config.ddae.tap=out_2, --config.seed=1, ...
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import build, runs, tuning
from experiments.configs import finetune as finetune_config
from experiments.probing import SPLITS, plain_stream, print_once, shown, write_json
from experiments.runs import Run, open_trained
from soda_jax.evaluation.features import Extractor
from soda_jax.evaluation.intervals import accuracy_interval

CONFIG = finetune_config.__file__


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or that of the training where it failed."""
    return tuning.run_main(_parser(), finetune, argv)


def finetune(arguments: argparse.Namespace, more: Sequence[str]) -> dict[str, Any]:
    """Trains, measures, writes and prints. Raises what opening a run raises, and Stopped."""
    run = open_trained(arguments.workdir, arguments.step)
    folder = run.workdir / "finetune" / str(run.step) / (arguments.name or name_of(arguments))
    given = {"finetune.fraction": arguments.fraction, "finetune.shots": arguments.shots}
    given |= {"finetune.start": arguments.start, "train.images": arguments.images}
    tuned = tuning.train(f"{CONFIG}:{run.workdir}@{run.step}", folder, [*tuning.as_flags(given), *more])
    found = results(tuned, before(folder / "results.json"))
    for path in (folder, folder.parent):
        write_json(path / "results.json", found)
    print_once(text(found))
    return found


def name_of(arguments: argparse.Namespace) -> str:
    """fraction_0.01, shots_5_scratch, ..."""
    part = f"shots_{arguments.shots}" if arguments.shots else f"fraction_{arguments.fraction or 1:g}"
    return f"{part}_scratch" if arguments.start == "scratch" else part


def before(path: Path) -> dict[str, Any]:
    """What an earlier call has left."""
    return json.loads(path.read_text()) if path.is_file() else {}


def results(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the averaged networks of a fine-tuned run know of the test split; `found`, if that is of the same."""
    c, variables = run.config, run.ema_variables()
    made_from = {"weights": runs.fingerprint(variables), "config": runs.digest(runs.plain(c))}
    if found.get("made_from") == made_from:
        print_once("the test split has answered already")
        return dict(found)
    dataset, ask = build.dataset(c), extractor(run)
    count = len(dataset.split("test")) * dataset.views
    with plain_stream(dataset, "test", c, c.probe.batch) as stream:
        pieces = shown(stream, "answering test", -(-count // c.probe.batch), print_once)
        table = ask(variables, pieces, dataset.views)
    answers = table.features["answers"].astype(int)
    labels = {}
    for place, name in enumerate(dataset.labels):
        accuracy, interval = accuracy_interval(answers[:, place] == table.labels[name], table.groups)
        labels[name] = {"test": accuracy, "test_ci95": list(interval)}
    examples = len(dataset.split("train"))
    whole = len(build.whole_dataset(c).split("train"))
    return {
        "fraction": examples / whole,
        "test": float(np.mean([label["test"] for label in labels.values()])),
        "labels": labels,
        "start": c.finetune.start,
        "sizes": {"train": examples, SPLITS[1]: len(table)},
        "images": run.step * c.train.batch,
        "made_from": made_from,
    }


def extractor(run: Run) -> Extractor:
    """Of the classes that a fine-tuned run takes for the likeliest, "answers"."""
    return Extractor(run.method.answers, ("answers",))


def text(found: dict[str, Any]) -> str:
    """For people."""
    start = {"trained": "fine-tuned", "scratch": "from scratch"}[found["start"]]
    sizes = found["sizes"]
    lines = [
        f"{start} on {sizes['train']:,} labelled examples ({found['fraction']:.2%}), {found['images']:,} images seen; "
        f"test accuracy in % [95% interval] of {sizes['test']:,} images"
    ]
    for name, label in found["labels"].items():
        low, high = label["test_ci95"]
        lines.append(f"  {name}: {label['test'] * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.finetune",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--step", type=int, help="checkpoint to begin with (default: the newest)")
    parser.add_argument("--fraction", type=float, help="of the training examples (default: 1)")
    parser.add_argument("--shots", type=int, help="examples of each class, instead")
    parser.add_argument("--start", choices=["trained", "scratch"], help="default: trained")
    parser.add_argument("--images", type=int, help="seen in training (default: 100,000)")
    parser.add_argument("--name", default="", help="of the folder of this fine-tuning")
    return parser


if __name__ == "__main__":
    sys.exit(main())
