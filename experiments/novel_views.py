"""Novel views: held-out scenes seen by one camera, painted as their other cameras see them, and held against those.

Writes into DIR/novel_views/<step>/:
    results.json   PSNR, SSIM, sharpness and a feature distance of the mean of a view's samples ("psnr", ...) and of one
                   ("one_sample"), with 95% intervals over scenes; in "baselines" the same of copying the source view
                   that is nearest, and of a regressor: the same networks, trained to paint the mean image at once; with
                   --judge_images in "recognised" how often a judge reads each label off the views (recognition.py)
    views.png      source | target | mean of the samples | samples | regressor | nearest view
    orbit.gif, orbit.png   a walk around some of the scenes, all frames of a scene from one noise

The regressor is the run that --regressor names. By default it is DIR/regressor, and is trained there first, on as many
images as the run has seen, with the run's config.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.sources import DataSet
from experiments import build, held_out, recognition, runs
from experiments import novel_view_pictures as figures
from experiments.drawing import Draw, draw, in_batches
from experiments.held_out import Pairs, Scene
from experiments.pictures import along_rows
from experiments.probing import print_once, write_json
from experiments.regressor_run import regressor_of, seen
from experiments.runs import Run, fingerprint
from soda_jax.evaluation.novel_views import MEASURES, Row, Scores, gain, measure, named, row
from soda_jax.methods.base import to_float
from soda_jax.methods.masking import Condition
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.preflight import check_alike
from soda_jax.parallel.sharding import replicated
from soda_jax.types import Batch, Image, Tree

ORBITS, FRAMES = 4, 24  # scenes that are walked around, and frames of a walk
KINDS = ("mean", "one", "nearest_view", "regressor", "true")  # of views that are held against the true ones


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run, and what is asked of it. ValueError for counts that are none."""

    run: Run
    dataset: DataSet
    scenes: int
    samples: int  # of each view
    rows: int  # of views.png
    seed: int
    judge_images: int = 0  # that the judge is trained on; 0: nobody judges

    def __post_init__(self):
        recognition.check(self.dataset, self.judge_images)
        for flag in ("scenes", "samples"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag} must be 1 or more, found {getattr(self, flag)}")
        if self.rows < 1:
            raise ValueError(f"--count must be 1 or more, found {self.rows}")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.run.workdir / "novel_views" / str(self.run.step)


@dataclass(frozen=True, kw_only=True)
class Painted:
    """What a model paints."""

    views: np.ndarray  # uint8 [n, samples, h, w, c]
    walks: np.ndarray  # uint8 [orbits, frames, h, w, c]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this mode."""
    group = parser.add_argument_group("--mode=novel_views")
    group.add_argument("--scenes", type=int, default=100, help="held-out scenes (default: 100)")
    group.add_argument("--samples", type=int, default=4, help="drawings of each view (default: 4)")
    group.add_argument(
        "--regressor",
        metavar="DIR",
        help="run of config.method=regressor to compare with; none: leave it out "
        "(default: WORKDIR/regressor, trained first where it is not there)",
    )
    group.add_argument(
        "--judge_images",
        type=int,
        default=0,
        help="train a judge on so many real images (60000 is enough for views3d), and say how often it reads the "
        "labels of the scenes off the views (default: 0, no judge)",
    )


def run_mode(run: Run, arguments: argparse.Namespace) -> list[Path]:
    """`experiments.sample --mode=novel_views`."""
    dataset = build.dataset(run.config)
    held_out.check(run, dataset)
    a = arguments
    counts = {"scenes": a.scenes, "samples": a.samples, "rows": a.count, "judge_images": a.judge_images}
    job = Job(run=run, dataset=dataset, seed=a.seed, **counts)
    return evaluate(job, regressor_of(run, arguments.regressor))


def evaluate(job: Job, regressor: Run | None) -> list[Path]:
    """The results and the pictures, unless they are there and made from the same; prints the table."""
    models = {"soda": job.run, **({"regressor": regressor} if regressor else {})}
    variables = {name: run.ema_variables() for name, run in models.items()}
    origin, path = made_from(job, variables), job.folder / "results.json"
    check_alike({name: json.dumps(value) for name, value in origin.items()})
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("made_from") == origin:
        print_once(f"the novel views of step {job.run.step} are there already: {path}")
    else:
        found = made(job, models, variables, origin)
        write_json(path, found)
    print_once(figures.table_text(found))
    return [job.folder / name for name in ("results.json", *figures.FILES)]


def made_from(job: Job, variables: Mapping[str, Tree]) -> dict[str, Any]:
    """All that the results depend on."""
    config = runs.plain(job.run.config)
    settings = {"scenes": job.scenes, "samples": job.samples, "rows": job.rows, "seed": job.seed}
    settings |= {"judge_images": job.judge_images} if job.judge_images else {}
    weights = {name: fingerprint(tree) for name, tree in variables.items()}
    data = {
        **{name: config["data"][name] for name in ("name", "test_split")},
        "manifest": job.dataset.manifest,
    }
    return {"weights": weights, "settings": settings, "sampler": config["samples"], "data": data}


def made(
    job: Job, models: Mapping[str, Run], variables: Mapping[str, Tree], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Paints, measures, writes the pictures; what is to be written to results.json."""
    scenes = held_out.scenes_of(job.dataset, job.scenes, job.seed, job.run.config.data.sources)
    pairs = held_out.pairs_of(scenes, job.run.config)
    painted = {
        name: paint(run, variables[name], pairs, scenes, job.samples if name == "soda" else 1, job.seed)
        for name, run in models.items()
    }
    views = {name: one.views for name, one in painted.items()}
    found = {**about(job, models, pairs), **table(measured(pairs, views), pairs.row), "made_from": origin}
    if job.judge_images:
        found["recognised"] = recognition.recognised(
            job.run, job.dataset, job.judge_images, scenes, pairs, views
        )
    if processes.is_main():
        figures.write(job.folder, job.rows, pairs, painted, found)
    return found


def about(job: Job, models: Mapping[str, Run], pairs: Pairs) -> dict[str, Any]:
    """What was held against what."""
    regressor = models.get("regressor")
    who = regressor and {"workdir": str(regressor.workdir), "step": regressor.step, "images": seen(regressor)}
    counts = {"scenes": len(pairs.sources), "pairs": len(pairs.row), "samples": job.samples}
    return {"step": job.run.step, "images": seen(job.run), **counts, "regressor": who}


# Painting ---------------------------------------------------------------------------------------------------


def paint(
    run: Run, variables: Tree, pairs: Pairs, scenes: Sequence[Scene], samples: int, seed: int
) -> Painted:
    """So many samples of every pair, each from its own noise, and a walk around each of the first scenes."""
    config = run.config.copy_and_resolve_references()
    if config.method == "regressor":
        config.samples.update(sampler="ddim", steps=1)  # for the progress: it is called once
        config.samples.update(variance="posterior", grid="even")
    encode, brush = draw(config, run.method, variables, seed)
    told = encode.told(pairs.sources, pairs.seen)
    views, walks = brush([views_job(told, pairs, samples), walks_job(told, scenes[:ORBITS])])
    return Painted(views=views, walks=walks)


def views_job(told: Condition, pairs: Pairs, samples: int) -> Draw:
    """Every pair, `samples` times."""
    count = len(pairs.row)
    more = {name: x[pairs.row] for name, x in told.beside().items()}
    return Draw(
        z=np.repeat(told.z[pairs.row][:, None], samples, axis=1),
        noise=np.arange(count * samples).reshape(count, samples),
        cameras=along_rows({**pairs.cameras, **more}, samples),
    )


def walks_job(told: Condition, scenes: Sequence[Scene]) -> Draw:
    """One walk a scene, with one noise."""
    walks, count = [scene.orbit(FRAMES) for scene in scenes], len(scenes)
    cameras = {name: np.stack([walk[name] for walk in walks]) for name in walks[0]}
    more = {name: x[:count] for name, x in told.beside().items()}
    return Draw(
        z=np.repeat(told.z[:count, None], FRAMES, axis=1),
        noise=np.tile(np.arange(count)[:, None], (1, FRAMES)),
        cameras={**cameras, **along_rows(more, FRAMES)},
    )


# Measuring --------------------------------------------------------------------------------------------------


def kinds(part: Batch) -> dict[str, Image]:
    """The views of each kind of KINDS, [b, h, w, c]."""
    views = to_float(part["soda"])
    found = {"mean": views.mean(axis=1), "one": views[:, 0]}
    found |= {name: to_float(part[name]) for name in ("nearest_view", "true")}
    return found | ({"regressor": to_float(part["regressor"])[:, 0]} if "regressor" in part else {})


def measured(pairs: Pairs, views: Mapping[str, np.ndarray]) -> dict[str, Scores]:
    """The scores of every kind of view, pair by pair; over all devices."""
    arrays = {**views, "nearest_view": pairs.nearest, "true": pairs.targets}
    mesh, names = make_mesh(), [name for name in KINDS if name != "regressor" or name in views]

    def score(part: Batch) -> jax.Array:
        found = kinds(part)
        return measure([found[name] for name in names], found["true"])

    scores = in_batches(jax.jit(score, out_shardings=replicated(mesh)), arrays, mesh)
    return named(scores, names)


def table(scores: Mapping[str, Scores], scenes: np.ndarray) -> dict[str, Any]:
    """The rows of the table. "gain": of the mean, in PSNR and SSIM, and of one sample, in sharpness."""
    true = scores["true"]
    rows: dict[str, Row] = {name: row(values, true, scenes) for name, values in scores.items()}
    names = [name for name in ("nearest_view", "regressor") if name in scores]
    soda = {**scores["mean"], "sharpness": scores["one"]["sharpness"]}
    gains = {name: gain(soda, scores[name], true, scenes) for name in names}
    return {
        **rows["mean"],
        "one_sample": rows["one"],
        "baselines": {name: rows.get(name) for name in ("nearest_view", "regressor")},
        "gain": gains,
        "measures": list(MEASURES),
    }
