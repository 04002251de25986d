"""How well a run draws its own images again: `python -m experiments.sample --workdir=DIR --mode=reconstruction`.

Every image of the test split (each view of a scene is one; of the training split where there is no other) is encoded,
and drawn from its z as its own target, in each number of steps: `stochastic`, from noise that was drawn, by the run's
sampler; `inverted`, from the noise that DDIM inversion finds for it, by the same sampler without fresh noise and
clipping (DDIM in place of DDPM), from t = n / (n + 1) on. DIR/reconstruction/<step>/ then has

    results.json    PSNR (dB, of each image, at most 100), SSIM and MSE (of values in 0..1): means and 95% intervals
    per_image.npz   the same of each image, and what was drawn of the first; grows by one number of steps at a time
    pictures.png    those
    exhibit.json    for the report

--steps=1,2,5,...   of the curve      --images=N   so many, drawn by the seed (default: all)
"""

import argparse
import dataclasses
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments import networks
from experiments.drawing import Steps, batch_size, numbered_noise
from experiments.probing import print_once, write_json
from experiments.reconstruction_job import SHOWN, Arrays, Job, batches, first_images, prepare, settings_hash
from experiments.reconstruction_report import show
from experiments.runs import Run, fingerprint
from soda_jax.diffusion.inversion import ITERATIONS
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.editing.inversion import noise_of
from soda_jax.evaluation import image_quality
from soda_jax.evaluation.intervals import bootstrap
from soda_jax.methods.base import to_float, to_uint8
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.preflight import check_alike
from soda_jax.parallel.sharding import put_rows, put_whole, replicated
from soda_jax.types import Batch, Image, Tree

KINDS = ("stochastic", "inverted")
STEPS = (1, 2, 5, 10, 20, 50, 100)
SCORES = ("psnr", "ssim", "mse")
FRESH = 2**31 - 1  # stream of the sampler's own noise: no image has this number


def run_mode(run: Run, arguments: argparse.Namespace) -> list[Path]:
    """`experiments.sample --mode=reconstruction`: makes what is missing; returns where it is.

    Raises ValueError, before anything is computed, where --steps or --images cannot be.
    """
    job = prepare(run, arguments.steps, arguments.images, arguments.seed)
    variables = run.ema_variables()
    made_from = {"weights": fingerprint(variables), "settings": settings_hash(job)}
    found = stored(job.folder / "per_image.npz", made_from)
    check_alike({"step": str(run.step), **made_from, "done already": str(sorted(found))})
    todo = [(kind, n) for n in job.steps for kind in KINDS if f"{kind}/{n}/psnr" not in found]
    if is_done(job, made_from):
        print_once(f"the reconstructions of step {run.step} are there already")
    else:
        print_once(f"reconstructing {len(job.images):,} {job.split} images in {list(job.steps)} steps")
        found = {**found, "image": job.images, **first_images(job)}
        for new in measured(job, variables, todo):
            found = {**found, **new}
            store(job.folder / "per_image.npz", made_from, found)
        results = {**results_of(job, found), "made_from": made_from}
        show(job.folder, results, found)
        write_json(job.folder / "results.json", results)
    return [job.folder / name for name in ("results.json", "pictures.png")]


# Drawing --------------------------------------------------------------------------------------------------


def measured(job: Job, variables: Tree, todo: Sequence[tuple[str, int]]) -> Iterator[Arrays]:
    """For each (kind, steps) the scores of all images and the drawings of the first, by "kind/steps/name"."""
    if not todo:
        return
    mesh = make_mesh()
    variables = put_whole(variables, mesh)
    size, rounds = batch_size(len(job.images), mesh.size)
    make = programs(job, mesh)
    with Steps(len(job.images), rounds * sum(steps_of(kind, n) for kind, n in todo)) as progress:
        for kind, n in todo:
            started, parts = time.monotonic(), []
            for part in batches(job, size):
                parts.append(make(kind, n, variables, part))
                progress.advance(0, steps_of(kind, n))
            found = joined(parts, len(job.images))
            psnr = float(found["psnr"].mean())
            print_once(f"  {kind}, {n} steps: PSNR {psnr:.2f} dB, {time.monotonic() - started:.0f} s")
            yield {f"{kind}/{n}/{name}": array for name, array in found.items()}


def steps_of(kind: str, n: int) -> int:
    """Of the work, for the progress that is shown."""
    return n if kind == "stochastic" else n * (1 + ITERATIONS)


def joined(parts: Sequence[Arrays], count: int) -> Arrays:
    """The scores of `count` images, and of the first the drawings."""
    scores = {name: np.concatenate([part[name] for part in parts])[:count] for name in SCORES}
    return {**scores, "drawn": parts[0]["drawn"][: min(SHOWN, count)]}


def programs(job: Job, mesh: Mesh) -> Callable[..., Arrays]:
    """(kind, steps, variables, views) -> scores [b] and "drawn" uint8 [b, h, w, c]; compiled once a kind.

    They report no step: what calls back is never kept in the compilation cache.
    """
    method, guidance, root = job.run.method, networks.guidance(job.run.config), jax.random.key(job.seed)

    def program(variables: Tree, rows: Batch, grid: jax.Array, n: jax.Array, *, kind: str, sampler: Sampler):
        told, x0 = method.condition(variables, rows["source"], rows), to_float(rows["target"])
        z, walk = told.z, {"guidance": guidance, "cameras": rows, "grid": grid, "steps": n, **told.beside()}
        fresh = jax.random.fold_in(jax.random.fold_in(root, FRESH), rows["image"][0])  # another in each batch
        if kind == "stochastic":
            noise = numbered_noise(root, rows["image"], x0.shape[1:])  # the same in every number of steps
        else:
            noise = noise_of(method, variables, x0, z, **walk)
        drawn = method.generate(variables, z, sampler, fresh, x0.shape[1:], noise=noise, **walk)
        drawn = jnp.clip(drawn, -1.0, 1.0)
        return {**scored(drawn, x0), "drawn": to_uint8(drawn)}

    compiled = jax.jit(program, static_argnames=("kind", "sampler"), out_shardings=replicated(mesh))

    def make(kind: str, n: int, variables: Tree, views: Arrays) -> Arrays:
        options = {"kind": kind, "sampler": job.sampler_of(kind, n)}
        found = compiled(
            variables, put_rows(views, mesh), np.asarray(job.grid(kind, n)), np.int32(n), **options
        )
        return {name: np.asarray(array) for name, array in found.items()}

    return make


def scored(drawn: Image, target: Image) -> dict[str, jax.Array]:
    """SCORES of each image."""
    measures = {"psnr": image_quality.capped_psnr, "ssim": image_quality.ssim, "mse": image_quality.mse}
    return {name: measures[name](drawn, target) for name in SCORES}


# What is there --------------------------------------------------------------------------------------------


def is_done(job: Job, made_from: Mapping[str, str]) -> bool:
    """Whether results.json, which is written last, is of the same and has all these steps."""
    try:
        results = json.loads((job.folder / "results.json").read_text())
    except (OSError, ValueError):  # not there, or damaged: it is made again
        return False
    return results["made_from"] == made_from and {str(n) for n in job.steps} <= results[KINDS[0]].keys()


def stored(path: Path, made_from: Mapping[str, str]) -> Arrays:
    """What an earlier call has measured of the same; empty where there is nothing."""
    try:
        with path.open("rb") as file, np.load(file) as opened:
            arrays = dict(opened)
    except (OSError, ValueError, zipfile.BadZipFile):  # not there, or damaged: it is made again
        return {}
    same = str(arrays.pop("made_from", "")) == json.dumps(made_from)
    return arrays if same else {}


def store(path: Path, made_from: Mapping[str, str], arrays: Arrays) -> None:
    """Whole or not at all, by process 0."""
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, made_from=np.array(json.dumps(made_from)), **arrays)
        part.replace(path)


def results_of(job: Job, found: Arrays) -> dict[str, Any]:
    """results.json: kind -> steps -> means, their intervals, and how often the network is called for an image."""
    done = sorted(int(n) for n in {name.split("/")[1] for name in found if name.startswith(KINDS)})
    done = [n for n in done if all(f"{kind}/{n}/psnr" in found for kind in KINDS)]
    scores = {kind: {str(n): means(job, found, kind, n) for n in done} for kind in KINDS}
    samplers = {kind: words_of(job.sampler_of(kind, 1)) for kind in KINDS}
    images = {"split": job.split, "images": len(job.images), "of": len(job.source) * job.cameras}
    return {"step": job.run.step, **images, "seed": job.seed, "samplers": samplers, **scores}


def means(job: Job, found: Arrays, kind: str, n: int) -> dict[str, Any]:
    """Views of a scene rise and fall together, so the intervals are over scenes."""
    means = {}
    for name in SCORES:
        values = found[f"{kind}/{n}/{name}"].astype(np.float64)
        means[name], means[f"{name}_ci95"] = bootstrap(values, job.images // job.cameras)
    return {**means, **calls_of(job, kind, n)}


def calls_of(job: Job, kind: str, n: int) -> dict[str, int]:
    """Network calls for an image, those of the inversion among them; guidance calls twice."""
    each = 2 if networks.guidance(job.run.config).weight else 1
    if kind == "stochastic":
        return {"calls": each * dataclasses.replace(job.sampler, steps=n).calls(job.run.method.schedule)}
    walk = 2 * n - 1 if job.sampler.kind == "heun" else n  # from t < 1 its first step is corrected as well
    return {"calls": each * (walk + n * ITERATIONS), "inversion_calls": each * n * ITERATIONS}


def words_of(sampler: Sampler) -> str:
    """How it draws."""
    noise = f", eta {sampler.eta}" if sampler.kind == "ddim" and sampler.eta else ""
    noise = f", churn {sampler.churn}" if sampler.churn else noise
    noise += ", variance beta" if sampler.variance == "beta" else ""
    return f"{sampler.kind.upper()}{noise}, {'clipped' if sampler.clip_x0 else 'not clipped'}"
