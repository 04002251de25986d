"""How many directions a diffusion net's feature of clean images has, over time: what RepFusion chooses from.

    python -m experiments.teacher_rank --workdir=DIR      DIR: a DDAE run, as it would be somebody's teacher

For each t = 0, 1, 2, ... T - 1, as RepFusion counts them, the net is shown clean images and told the time t + 1; its
feature, all pixels and channels of a block side by side, has over the images the effective rank
    exp(- sum_i p_i ln p_i),   p of the variances along its principal directions, or of their roots (singular values)
which is less than the number of images and at most that of the entries: the curve says something with several times as
many images as entries alone (--images=20000 for the 4,096 of the paper's net). The authors' code keeps such a curve of
their teacher on CIFAR-10 (arXiv 2308.10916): flat, and then a fall from t = 500 on. Which of the two ranks theirs is,
and over how many images, is not known.

Writes DIR/teacher_rank/<step>/results.json, rank.svg and a section of the run's page. The same command again finds it.

--images=N      of the training split, drawn at random, the same ones every time (default: 8192)
--times=T,T,..  (default: those of 0,1,2,5,8,10,20,50,300,500,900,999 that the net has)
--layer=NAME    (default: middle/branch, what RepFusion distils)
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, cluster, runs, xla_flags
from experiments.probe_grid import taps
from experiments.probing import Job, batches, chosen_images, print_once, settings_of, write_json
from experiments.runs import open_run
from soda_jax.evaluation.features import Extractor
from soda_jax.methods.ddae import DDAE
from soda_jax.nn.ddpm_unet import MIDDLE
from soda_jax.parallel import processes
from soda_jax.report import exhibit
from soda_jax.report.curves import Series, line_chart, standalone
from soda_jax.report.exhibit import Curves, Exhibit, Table
from soda_jax.training.latent_monitor import effective_rank
from soda_jax.types import Bytes, Features, Tree

TIMES = (0, 1, 2, 5, 8, 10, 20, 50, 300, 500, 900, 999)  # of the authors' code
RANKS = {"variances": 2, "singular values": 1}  # power of the singular values
TITLE = "Directions of the feature of clean images, over time"
Results = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()

    def work() -> None:
        print_once(words(measure(arguments)))

    folder = Path(arguments.workdir)
    return cluster.carry_out("experiments.teacher_rank", arguments, folder, work, if_stopped="begins again")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result, from its file if that was made from the same. ValueError for flags that this run does not allow."""
    job = prepare(arguments.workdir, arguments.step)
    times = checked_times(arguments.times, job.run.method.levels)
    check_layer(job, arguments.layer, arguments.images)
    variables = job.run.ema_variables()
    folder = job.run.workdir / "teacher_rank" / str(job.run.step)
    images = chosen_images(job, "train", arguments.images)
    made_from = {"net": runs.fingerprint(variables), "data": runs.digest(job.dataset.manifest)}
    made_from |= {"times": list(times), "layer": arguments.layer, "images": runs.digest(images.tolist())}
    path = folder / "results.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("made_from") != made_from:
        rows = ranks_by_time(job, variables, arguments.layer, times, images)
        found = {"step": job.run.step, "images": len(images), "layer": arguments.layer, **rows}
        found["made_from"] = made_from
        write_json(path, found)
    leave(folder, found)
    return found


def prepare(workdir: str, step: int | None) -> Job:
    """The run at this step, and its data. ValueError where it is no DDAE run with a checkpoint."""
    run = open_run(workdir, step)
    if not isinstance(run.method, DDAE) or run.step is None:
        raise ValueError(
            f"--workdir={workdir} must be a run of config.method='ddae' with a checkpoint, found "
            f"{run.config.method!r} at step {run.step}"
        )
    return Job(run=run, dataset=build.dataset(run.config), settings=settings_of(run.config))


def checked_times(asked: Sequence[int], levels: int) -> tuple[int, ...]:
    """Ascending; none asked for: the usual ones. ValueError for those that the net does not have."""
    times = sorted(set(asked)) or [t for t in TIMES if t < levels]
    if wrong := [t for t in times if not 0 <= t < levels]:
        raise ValueError(f"--times: {wrong} are not within 0 to {levels - 1}, the net's")
    return tuple(times)


def check_layer(job: Job, layer: str, images: int) -> None:
    """ValueError for a block that the net does not have, and for less than two images."""
    if layer not in taps(job, job.run.method):
        raise ValueError(f"--layer={layer}: the net has {', '.join(taps(job, job.run.method))}")
    if images < 2:
        raise ValueError(f"--images={images}: expected 2 or more")


def ranks_by_time(
    job: Job, variables: Tree, layer: str, times: Sequence[int], images: np.ndarray
) -> dict[str, Any]:
    """{"features": entries of the feature, "t": [...], "ranks": {name: [...]}}."""
    method = job.run.method

    def flat(told: Tree, images: Bytes) -> Features:
        found = method.maps(told["variables"], images, jnp.full(len(images), told["t"]), None)[layer]
        return {layer: found.reshape(len(found), -1)}

    extractor, rank = Extractor(flat, (layer,)), jax.jit(effective_rank, static_argnums=1)
    rows: dict[str, list[float]] = {name: [] for name in RANKS}
    for t in times:
        job.say(f"t = {t}")
        told = {"variables": variables, "t": np.asarray((t + 1) / method.levels, np.float32)}
        feature = extractor(told, batches(job, "train", images), job.dataset.views).features[layer]
        for name, power in RANKS.items():
            rows[name].append(float(rank(feature, power)))
    return {"features": int(feature.shape[1]), "t": list(times), "ranks": rows}


# What it says -----------------------------------------------------------------------------------------------


def words(found: Results) -> str:
    """A line a time."""
    names = list(found["ranks"])
    lines = [
        f"effective rank of the {found['features']:,} entries of {found['layer']}, {found['images']:,} images"
    ]
    lines.append("     t  " + "  ".join(f"{name:>16}" for name in names))
    for i, t in enumerate(found["t"]):
        lines.append(f"  {t:4}  " + "  ".join(f"{found['ranks'][name][i]:16.1f}" for name in names))
    return "\n".join(lines)


def leave(folder: Path, found: Results) -> None:
    """The picture and the section of the page; process 0 writes them."""
    if not processes.is_main():
        return
    places = [t + 1 for t in found["t"]]
    lines = [
        Series(name=f"of {name}", x=places, y=ranks, colour=i)
        for i, (name, ranks) in enumerate(found["ranks"].items())
    ]
    chart = line_chart(lines, title=TITLE, x_label="t + 1", log_x=True)
    (folder / "rank.svg").write_text(standalone(chart))
    exhibit.write(folder, exhibit_of(found, places))


def exhibit_of(found: Results, places: Sequence[int]) -> Exhibit:
    """What the page shows."""
    about = (
        f"Step {found['step']}: effective rank of the {found['features']:,} entries of {found['layer']} over "
        f"{found['images']:,} clean training images, of which a rank is below their number. RepFusion's policy chooses "
        "the time t, counted from 0, at which a teacher is asked for this feature."
    )
    names = list(found["ranks"])
    rows = [[str(t), *(f"{found['ranks'][name][i]:.1f}" for name in names)] for i, t in enumerate(found["t"])]
    series = {f"of {name}": (places, ranks) for name, ranks in found["ranks"].items()}
    return Exhibit(
        title=TITLE,
        order=6,
        paragraphs=(about,),
        tables=(Table(head=["t", *(f"of {name}" for name in names)], rows=rows),),
        curves=(Curves(title="Effective rank", x="t + 1", series=series, log_x=True),),
        command=runs.command(),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.teacher_rank",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a DDAE run")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument("--images", type=int, default=8192, metavar="N", help="(default: 8192)")
    parser.add_argument("--times", type=numbers, default=(), metavar="T,T,...", help="see above")
    parser.add_argument("--layer", default=MIDDLE, metavar="NAME", help=f"(default: {MIDDLE})")
    cluster.add_arguments(parser)
    return parser


def numbers(text: str) -> tuple[int, ...]:
    """ "1,2,5" as numbers."""
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
