"""What is shown of images from nothing: two pictures, and a section on the page of the run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from soda_jax.report.exhibit import Exhibit, Table
from soda_jax.report.figures import save_grid

ROWS, COLUMNS = 6, 5  # of images of one kind
NAMES = {
    "prior": "z from the prior",
    "gaussian": "z from a Gaussian with the same mean and covariance",
    "test": "z of real test images",
    "test_images": "real test images (the floor)",
}


def page(results: Mapping[str, Any]) -> Exhibit:
    """Both tables and both pictures."""
    return Exhibit(
        title="Images from nothing",
        order=60,
        paragraphs=words(results),
        tables=(frechet_table(results), nearest_table(results)),
        pictures=(
            ("samples.png", "Decoded from z of the prior, and from z of the Gaussian."),
            (
                "nearest.png",
                "The images that come nearest to a training image in pixels, with the training images that are "
                "nearest in pixels and in z: of the prior, and of test images for comparison.",
            ),
        ),
        command="python -m experiments.sample --workdir=DIR --mode=unconditional",
    )


def words(results: Mapping[str, Any]) -> list[str]:
    """How it was made, and what to beware of."""
    made = (
        f"Step {results['step']} of the prior, decoded by step {results['decoder']['step']} of "
        f"{results['decoder']['workdir']}; {results['images']:,} images of each kind."
    )
    posed = ["The cameras are those of training examples, drawn at random."] if results["posed"] else []
    return [" ".join([made, *posed]), *results["cautions"]]


def frechet_table(results: Mapping[str, Any]) -> Table:
    """How far each set is from training images."""
    rows = [[NAMES[name], f"{value:.4g}"] for name, value in results["frechet"].items()]
    head = [f"{results['images']:,} images of each", "Frechet distance"]
    return Table(
        head=head,
        rows=rows,
        caption=f"From as many training images, in the space {results['space']}; less is better.",
    )


def nearest_table(results: Mapping[str, Any]) -> Table:
    """How near images come to training images."""
    rows = [
        [
            NAMES[name],
            space,
            f"{one['median']:.4g}",
            f"{one['median_test']:.4g}",
            f"{one['ratio']:.2f}",
            f"{one['copies']:.3f}",
        ]
        for space, sets in results["nearest"].items()
        for name, one in sets.items()
    ]
    return Table(
        head=[
            "images of",
            "space",
            "median distance",
            "of test images",
            "ratio",
            "nearer than 99% of test images",
        ],
        rows=rows,
        caption=f"Distance to the nearest of {results['train']:,} training images. Copies would have a ratio near 0 "
        "and a share near 1; new images about 1 or more, and 0.01.",
    )


def save_samples(path: Path, images: Mapping[str, np.ndarray], text: str) -> None:
    """The first images of the prior and of the Gaussian, which began with the same noise."""
    rows = min(ROWS, max(1, len(images["prior"]) // COLUMNS))
    columns = [
        (title, images[name][start : start + rows])
        for name, title in (("prior", "z of the prior"), ("gaussian", "z of a Gaussian"))
        for start in range(0, rows * min(COLUMNS, len(images[name]) // rows), rows)
    ]
    save_grid(path, columns, side=64, description=text)


def save_nearest(
    path: Path,
    images: Mapping[str, np.ndarray],
    found: Mapping[str, Any],
    training: Callable[[np.ndarray], np.ndarray],
    text: str,
) -> None:
    """The images that come nearest in pixels, of the prior and of test images; training: images of some rows."""
    columns = []
    for name, title in (("prior", "prior"), ("test", "z of test image")):
        order = found["pixels"][name].closest(ROWS)
        columns.append((title, images[name][order]))
        columns += [
            (f"nearest: {space}", training(found[space][name].row[order])) for space in ("pixels", "z")
        ]
    save_grid(path, columns, side=96, description=text)
