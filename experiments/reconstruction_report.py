"""What a reconstruction shows: a picture, a table and curves, in its folder and on the page of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pictures import IMAGES_OF
from experiments.runs import command
from soda_jax.parallel import processes
from soda_jax.report import exhibit
from soda_jax.report.exhibit import Curves, Exhibit, Table
from soda_jax.report.figures import save_grid

NAMES = {"stochastic": "noise drawn", "inverted": "noise by inversion"}
PICTURE = "pictures.png"
Results = Mapping[str, Any]  # results.json


def show(folder: Path, results: Results, found: Mapping[str, np.ndarray]) -> None:
    """Writes the picture and the exhibit; process 0 does."""
    if not processes.is_main():
        return
    columns = columns_of(results, found)
    titles = [title for _ in found["target"] for title in NAMES.values()]
    side = 64 if len(columns) > 6 else 128
    save_grid(folder / PICTURE, columns, row_titles=titles, side=side, description=words_of(results))
    exhibit.write(folder, exhibit_of(results))


def columns_of(results: Results, found: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """The input, then what each number of steps draws; two rows an image, one of each kind."""
    counts = results["stochastic"]
    drawn = [(n, np.stack([found[f"{kind}/{n}/drawn"] for kind in NAMES], axis=1)) for n in counts]
    pairs = [(steps(n), images.reshape(-1, *images.shape[2:])) for n, images in drawn]
    return [("input", np.repeat(found["target"], len(NAMES), axis=0)), *pairs]


def steps(n: str) -> str:
    return "1 step" if n == "1" else f"{n} steps"


def words_of(results: Results) -> str:
    """How it was made."""
    which = IMAGES_OF[results["split"]]
    images = f"{results['images']:,} of {results['of']:,} {which}"
    samplers = "; ".join(f"{NAMES[kind]}: {words}" for kind, words in results["samplers"].items())
    return f"Step {results['step']}, {images}, seed {results['seed']}. {samplers}."


def exhibit_of(results: Results) -> Exhibit:
    """What the page shows."""
    return Exhibit(
        title="Reconstruction",
        order=10,
        paragraphs=(
            "Images are encoded and drawn again from their own z: from noise that was drawn at random, which shows "
            "what z alone knows, and from the noise that DDIM inversion finds for each image, which adds what z "
            "leaves open. In n steps, inversion goes up to t = n / (n + 1) and drawing comes down from there. What "
            "many steps still lack, the denoiser cannot draw even from the image itself, in its last step, to t = 0.",
            words_of(results),
        ),
        tables=(table(results),),
        curves=(curves(results, "psnr", "PSNR, dB"), curves(results, "ssim", "SSIM")),
        pictures=((PICTURE, "The first images, drawn again in more and more steps."),),
        command=command(),
    )


def table(results: Results) -> Table:
    """A row for each kind and number of steps."""
    head = ("noise", "steps", "network calls", "PSNR, dB", "95% interval", "SSIM", "MSE")
    rows = [row(kind, n, means) for kind in NAMES for n, means in results[kind].items()]
    caption = "Means over the images; the intervals are over scenes. Calls count those of the inversion."
    return Table(head=head, rows=tuple(rows), caption=caption)


def row(kind: str, n: str, means: Results) -> tuple[str, ...]:
    low, high = means["psnr_ci95"]
    calls, scores = str(means["calls"]), (f"{means['ssim']:.3f}", f"{means['mse']:.2e}")
    return (
        NAMES[kind].removeprefix("noise "),
        n,
        calls,
        f"{means['psnr']:.2f}",
        f"{low:.2f} to {high:.2f}",
        *scores,
    )


def curves(results: Results, score: str, title: str) -> Curves:
    """A score against the network calls, one line a kind."""

    def line(kind: str) -> tuple[list[int], list[float]]:
        points = [(means["calls"], means[score]) for means in results[kind].values()]
        return [x for x, _ in points], [y for _, y in points]

    return Curves(title=title, x="network calls", series={NAMES[k]: line(k) for k in NAMES}, log_x=True)
