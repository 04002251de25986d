"""The three pictures of a run: what z draws, from z to z, and section by section.

Writes into DIR/samples, from images of the test split, or of the training split where there is no other:
    <step>_views.png           source | target | drawn from the source's z, each column with its own noise
    <step>_interpolation.png   from the z of A to the z of B, all with the same noise
    <step>_sections.png        A with one section of its z taken from B, section by section
"""

import argparse
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data.sources import Source
from data.views import Views
from experiments import build
from experiments.drawing import Draw, Encode, draw, source_columns
from experiments.probing import print_once
from experiments.runs import Run, fingerprint
from soda_jax.editing.interpolate import lerp
from soda_jax.editing.sections import swap_each
from soda_jax.methods.soda import SODA
from soda_jax.nn.rays import CAMERAS
from soda_jax.parallel import processes
from soda_jax.parallel.preflight import check_alike
from soda_jax.report.figures import describe, save_grid
from soda_jax.types import Tree

GENERATED = 5  # drawings of one source
FRAMES = 7  # of an interpolation, both ends among them
PAIRS = 2  # of images A and B
IMAGES_OF = {
    "test": "test images, never trained on",
    "train": "images that were trained on",
}  # which, by split
KINDS = ("views", "interpolation", "sections")
Rows = Mapping[str, np.ndarray]  # name -> [n, ...]


def run_mode(run: Run, arguments: argparse.Namespace) -> list[Path]:
    """`experiments.sample --mode=pictures`."""
    return make(run, count=arguments.count, seed=arguments.seed)


def make(run: Run, *, count: int = 8, seed: int = 0) -> list[Path]:
    """Draws the three pictures of the run's step unless they are there; returns their paths.

    Raises ValueError where `count` is below 1, or there are fewer than two test images.
    """
    if not isinstance(run.method, SODA):
        raise ValueError(
            f"--mode=pictures draws what z says, which method={run.config.method!r} in --workdir={run.workdir} does "
            "not: it is for runs of SODA (--mode=images draws from nothing, of a DDAE)"
        )
    if count < 1:
        raise ValueError(f"--count must be 1 or more, found {count}")
    variables = run.ema_variables()
    folder, words = Path(run.workdir) / "samples", description(run, count, seed, fingerprint(variables))
    check_alike({"step": str(run.step), "pictures": words})
    paths = {kind: folder / f"{run.step}_{kind}.png" for kind in KINDS}
    if all(path.exists() and describe(path) == words for path in paths.values()):
        print_once(f"the pictures of step {run.step} are there already")
    else:
        for kind, columns in pictures(run, variables, count, seed).items():
            if processes.is_main():
                save_grid(paths[kind], columns, side=64 if len(columns) > 10 else 128, description=words)
    return list(paths.values())


def description(run: Run, count: int, seed: int, weights: str) -> str:
    """How the pictures were made; it is kept in the files, and tells whether they must be made again."""
    s = run.config.samples
    noise = f", eta {s.eta}" if s.sampler == "ddim" and s.eta else ""
    noise = f", churn {s.churn} x {s.churn_noise} in {list(s.churn_range)}" if s.churn else noise
    noise += ", variance beta" if s.variance == "beta" else ""
    noise += ", grid ddae" if s.grid == "ddae" else ""
    sampler = f"{s.sampler.upper()} in {s.steps} steps{noise}{guidance_words(s)}"
    images = f"{count} {IMAGES_OF[split_of(run.data_info['sizes'])]}"
    told = "told the camera of the view that it paints" if run.method.rays else "not told which view to paint"
    told += ", and looks at the sources" if run.method.cross_attention else ""
    return (
        f"Step {run.step} (weights {weights[:8]}), {images}, seed {seed}, {sampler}; the denoiser is {told}."
    )


def unguided_words(samples: ConfigDict, classes: int) -> str:
    """How a net without latent drew, which knows so many classes."""
    how = f"{samples.sampler} in {samples.steps} steps"
    return f"by class, {how}{guidance_words(samples)}" if classes else f"from nothing, {how}"


def guidance_words(samples: ConfigDict) -> str:
    """How z, or the class, was strengthened."""
    if not samples.guidance:
        return ""
    words = f", guidance {samples.guidance}"
    words += f" by sections {list(samples.guide_sections)}" if samples.guide_sections else ""
    words += f" for t in {list(samples.guidance_interval)}" if samples.guidance_interval != (0.0, 1.0) else ""
    return words + (f", rescaled by {samples.guidance_rescale}" if samples.guidance_rescale else "")


def pictures(run: Run, variables: Tree, count: int, seed: int) -> dict[str, list[tuple[str, Any]]]:
    """The columns of each picture."""
    source = source_of(run)
    chosen = choose(source, max(count, 2 * PAIRS), seed)
    couples = partners([source[i]["labels"] for i in chosen])[:PAIRS]
    seen = two_views(source, chosen[:count], build.views(run.config), seed)
    plain = plain_views(source, chosen, build.views(run.config))
    encode, paint = draw(run.config, run.method, variables, seed)
    seen, plain = read(encode, seen), read(encode, plain)
    own, z = beside(plain, [a for a, _ in couples]), plain["z"]
    jobs = [view_job(seen["z"], beside(seen)), interpolation_job(z, couples, own, plain.get("context"))]
    views, frames, swaps = paint([*jobs, section_job(z, couples, own)])
    ends = [[plain["target"][couple[i]] for couple in couples] for i in (0, 1)]
    return {
        "views": [*source_columns(seen["source"]), ("target", seen["target"]), *_columns(views, "generated")],
        "interpolation": [("A", ends[0]), *_columns(frames, *fractions()), ("B", ends[1])],
        "sections": [("A", ends[0]), ("B", ends[1]), *_columns(swaps, *section_titles(swaps.shape[1]))],
    }


def read(encode: Encode, views: Rows) -> Rows:
    """The same views, with the z of their sources, and where the denoiser looks at them their context."""
    told = encode.told(views["source"], cameras_of_rows(views))
    return {**views, "z": told.z, **told.beside()}


def view_job(z: np.ndarray, cameras: Rows) -> Draw:
    """Every latent with each of the same few noises."""
    noise = np.tile(np.arange(GENERATED), (len(z), 1))
    return Draw(
        z=np.repeat(z[:, None], GENERATED, axis=1), noise=noise, cameras=along_rows(cameras, GENERATED)
    )


def interpolation_job(
    z: np.ndarray, couples: Sequence[tuple[int, int]], cameras: Rows, context: np.ndarray | None = None
) -> Draw:
    """From the z of A to that of B, and from context to context, under the cameras of A."""

    def rows(x: np.ndarray) -> list[jax.Array]:
        return [lerp(jnp.asarray(x[a]), jnp.asarray(x[b]), FRAMES) for a, b in couples]

    job = _one_noise_a_row(rows(z), cameras)
    if context is None:
        return job
    return dataclasses.replace(job, cameras={**job.cameras, "context": np.stack(rows(context))})


def section_job(z: np.ndarray, couples: Sequence[tuple[int, int]], cameras: Rows) -> Draw:
    """z of A, then A with each section from B, then z of B; all with the cameras and the context of A."""
    z = jnp.asarray(z)
    swaps = [swap_each(z[a], z[b]) for a, b in couples]
    rows = [jnp.stack([z[a], *swapped, z[b]]) for (a, b), swapped in zip(couples, swaps, strict=True)]
    return _one_noise_a_row(rows, cameras)


def _one_noise_a_row(rows: list[jax.Array], cameras: Rows) -> Draw:
    z = np.stack(rows)
    noise = np.tile(np.arange(len(z))[:, None], (1, z.shape[1]))
    return Draw(z=z, noise=noise, cameras=along_rows(cameras, z.shape[1]))


def cameras_of_rows(views: Rows, rows: Sequence[int] | None = None) -> Rows:
    """The cameras among these views, of all rows or of some; empty where they are not known."""
    found = {name: views[name] for name in CAMERAS if name in views}
    return found if rows is None else {name: array[list(rows)] for name, array in found.items()}


def beside(views: Rows, rows: Sequence[int] | None = None) -> Rows:
    """What the denoiser is told beside z, of all rows or of some: cameras and context, where they are known."""
    context = {"context": views["context"]} if "context" in views else {}
    chosen = context if rows is None else {name: x[list(rows)] for name, x in context.items()}
    return {**cameras_of_rows(views, rows), **chosen}


def along_rows(cameras: Rows, columns: int) -> Rows:
    """[rows, ...] as [rows, columns, ...]."""
    return {name: np.repeat(array[:, None], columns, axis=1) for name, array in cameras.items()}


def fractions() -> list[str]:
    return [f"{i / (FRAMES - 1):.2f}" for i in range(FRAMES)]


def section_titles(columns: int) -> list[str]:
    return ["z of A", *(str(i) for i in range(columns - 2)), "z of B"]


def _columns(drawn: np.ndarray, *titles: str) -> list[tuple[str, np.ndarray]]:
    """[rows, columns, h, w, c] as titled columns; one title stands for all."""
    names = titles if len(titles) > 1 else titles * drawn.shape[1]
    return [(name, drawn[:, i]) for i, name in enumerate(names)]


def source_of(run: Run) -> Source:
    """The test split, or the training split of data that has no other.

    Raises what `open_data_set` raises, ValueError where there are not two examples.
    """
    dataset = build.dataset(run.config)
    which = split_of(dataset.splits)
    source = dataset.split(which)
    if len(source) < 2:
        raise ValueError(
            f"the pictures need 2 {which} examples or more, found {len(source)}: change data.{which}_split"
        )
    return source


def split_of(splits: Collection[str]) -> str:
    """Which split the pictures are of."""
    return "test" if "test" in splits else "train"


def choose(source: Source, count: int, seed: int) -> list[int]:
    """Distinct examples in random order, all of them where there are fewer than `count`."""
    order = np.random.default_rng(seed).permutation(len(source))
    return [int(i) for i in order[:count]]


def partners(labels: Sequence[dict[str, int]]) -> list[tuple[int, int]]:
    """Couples (A, B) of positions, each B the one that differs from A in most labels; no example twice."""
    left, couples = list(range(len(labels))), []
    while len(left) > 1:
        a = left.pop(0)
        b = max(left, key=lambda i: sum(labels[i][name] != labels[a][name] for name in labels[a]))
        left.remove(b)
        couples.append((a, b))
    return couples


def two_views(source: Source, chosen: Sequence[int], views: Views, seed: int) -> Rows:
    """Source, target and what else training makes of an example, [n, ...]."""
    return stacked([views.two_views(source[i], np.random.default_rng([seed, i])) for i in chosen])


def plain_views(source: Source, chosen: Sequence[int], views: Views) -> Rows:
    """The first image of each example as it is, in the sizes of source and target; its camera is that of both."""
    return stacked([views.plain_pair(source[i]) for i in chosen])


def stacked(drawn: Sequence[Mapping[str, Any]]) -> Rows:
    """The same names, [n, ...]."""
    return {name: np.stack([views[name] for views in drawn]) for name in drawn[0]}
