"""Images from nothing, as files, of a net without latent: `experiments.sample --workdir=DIR --mode=images --images=N`.

Of a net that knows k classes they are drawn in turn, image i of class i mod k, under samples.guidance.

DIR/images/<step>_<seed>/00000.png, ... and DIR/samples/<step>_images.png, a square of the first of them, or of up to
ten classes a row of each. Image i is drawn from the noise of number i, whatever the batch (samplers with fresh noise of
their own draw that by batch), so what is there is not drawn again, and more can be asked for later. How far they are
from real ones, in a named space:

    python -m experiments.quality --a=DIR/images/<step>_<seed> --b=tfds:fashion_mnist:train --out=distance.json
"""

import argparse
import json
import math
from pathlib import Path

import jax
import numpy as np
from PIL import Image as Pillow

from experiments import networks, runs
from experiments.drawing import MOST, Steps, class_titles, numbered_noise
from experiments.pictures import unguided_words
from experiments.probing import write_json
from experiments.runs import Run, fingerprint
from soda_jax.methods.base import to_uint8
from soda_jax.methods.ddae import DDAE
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_rows, put_whole, replicated
from soda_jax.report.figures import save_grid
from soda_jax.types import Batch, Tree

IMAGES, SHOWN = 1024, 10  # images by default; rows and columns of the square


def run_mode(run: Run, arguments: argparse.Namespace) -> list[Path]:
    """`experiments.sample --mode=images`. ValueError for a run that draws nothing from nothing."""
    if not isinstance(run.method, DDAE):
        raise ValueError(
            f"--mode=images is for method='ddae', found {run.config.method!r} in --workdir={run.workdir}: SODA draws "
            "from z (--mode=pictures), and from nothing with a prior (--mode=unconditional)"
        )
    count = IMAGES if arguments.images is None else arguments.images
    if count < 1:
        raise ValueError(f"--images must be 1 or more, found {count}")
    folder = run.workdir / "images" / f"{run.step}_{arguments.seed}"
    check_same(run, folder)
    missing = [number for number in range(count) if not path_of(folder, number).is_file()]
    if missing:
        write(run, folder, missing, arguments.seed)
    picture = run.workdir / "samples" / f"{run.step}_images.png"
    if processes.is_main():
        show(run, folder, count, picture)
    return [folder, picture]


def path_of(folder: Path, number: int) -> Path:
    """Of an image."""
    return folder / f"{number:05d}.png"


def check_same(run: Run, folder: Path) -> None:
    """ValueError where the folder has images of other weights or another sampler."""
    origin = {"weights": fingerprint(run.ema_variables()), "samples": runs.plain(run.config)["samples"]}
    path = folder / "made_from.json"
    if path.is_file() and json.loads(path.read_text()) != origin:
        raise ValueError(
            f"{folder} has images of other weights or another sampler: move it, or take another --seed"
        )
    write_json(path, origin)


def write(run: Run, folder: Path, numbers: list[int], seed: int) -> None:
    """Draws these images, in equal batches over the devices; process 0 writes each whole or not at all."""
    mesh = make_mesh()
    size = min(MOST, math.ceil(len(numbers) / mesh.size)) * mesh.size
    rounds = math.ceil(len(numbers) / size)
    variables = put_whole(run.ema_variables(), mesh)
    with Steps(len(numbers), rounds * run.config.samples.steps) as steps:
        draw = generator(run, seed, steps, mesh)
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            rows = np.array(part + part[-1:] * (size - len(part)))  # the last again to fill up
            images = np.asarray(draw(variables, put_rows({"noise": rows}, mesh)))
            if processes.is_main():
                for number, image in zip(part, images, strict=False):
                    save(path_of(folder, number), image)
    processes.any_process(False)  # all of them find the files


def generator(run: Run, seed: int, steps: Steps, mesh):
    """(variables, {"noise": numbers [b]}) -> uint8 images, compiled."""
    method, sampler, root = run.method, networks.sampler(run.config), jax.random.key(seed)
    shape, count = run.spec["target"].shape[1:], method.class_count
    guidance = networks.class_guidance(run.config, count)

    def generate(variables: Tree, rows: Batch):
        noise, fresh = numbered_noise(root, rows["noise"], shape), jax.random.fold_in(root, 2**31 - 1)
        told = {"classes": rows["noise"] % count if count else None, "guidance": guidance}
        return to_uint8(method.generate(variables, noise, sampler, fresh, steps.advance, **told))

    return jax.jit(generate, out_shardings=replicated(mesh))


def save(path: Path, image: np.ndarray) -> None:
    """As PNG."""
    part = path.with_suffix(".part")
    Pillow.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(part, format="PNG")
    part.replace(path)


def show(run: Run, folder: Path, count: int, picture: Path) -> None:
    """The first images."""
    classes, shape = run.method.class_count, run.spec["target"].shape[1:]
    numbers, by_class = shown(count, classes)
    titles = class_titles(run.data_info["label_names"], range(classes)) if by_class else []
    grid = [
        np.stack([np.asarray(Pillow.open(path_of(folder, n))).reshape(shape) for n in c]) for c in numbers.T
    ]
    text = f"step {run.step}: {unguided_words(run.config.samples, classes)}"
    picture.parent.mkdir(exist_ok=True)
    save_grid(picture, [("", column) for column in grid], row_titles=titles, description=text)


def shown(count: int, classes: int) -> tuple[np.ndarray, bool]:
    """Numbers of images, in rows and columns, out of so many: a square, or, and True, a row of each of few classes."""
    if 0 < classes <= min(SHOWN, count):
        columns = min(SHOWN, count // classes)
        return np.arange(columns * classes).reshape(columns, classes).T, True
    side = min(SHOWN, math.isqrt(count))
    return np.arange(side**2).reshape(side, side), False
