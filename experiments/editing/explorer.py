"""--mode=explorer: one page with sliders for the leading directions of z and for every section, drawn beforehand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.editing.outcome import Grid, Outcome
from experiments.editing.studio import Studio
from soda_jax.editing.directions import Directions, correlation_ratio, sweep
from soda_jax.report.explorer import MOST_IMAGES, Scene, Slider, explorer

LEADING = 6
STEPS = 4  # to either side
REACH = 3.0  # standard deviations at the end of a slider
AMOUNTS = np.linspace(-REACH, REACH, 2 * STEPS + 1, dtype=np.float32)


def run(studio: Studio) -> Outcome:
    """The first `--count` images. ValueError for more than there are keys."""
    if studio.arguments.count > MOST_IMAGES:
        raise ValueError(
            f"--count={studio.arguments.count}: the explorer shows {MOST_IMAGES} images or fewer"
        )
    n = min(studio.arguments.count, len(studio.examples))
    whole, *each = studio.directions(LEADING)
    found = [(whole, i) for i in range(len(whole.shares))] + [(one, 0) for one in each]
    lengths = np.stack([one.vectors[i] * one.deviations[i] for one, i in found])
    moved = np.delete(AMOUNTS, STEPS)
    swept = np.stack([sweep(studio.z[:n], length, moved) for length in lengths], axis=1)  # [n, m, a, s, d]
    z = np.concatenate([studio.z[:n, None], swept.reshape(n, -1, *studio.z.shape[1:])], axis=1)
    (drawn,) = studio.paint([studio.order(z, list(range(n)))])
    sliders = _sliders(studio, found, len(whole.shares))
    frames = drawn[:, 1:].reshape(n, len(sliders), 2 * STEPS, *drawn.shape[2:])
    scenes = [
        Scene(image=studio.plain["target"][i], redrawn=drawn[i, 0], frames=frames[i], words=_words(studio, i))
        for i in range(n)
    ]
    about = f"Run {studio.run.workdir.resolve().name}, step {studio.run.step}"
    return Outcome(
        title="Editing: explorer",
        paragraphs=[
            "A page of sliders over the leading directions of z and the first direction of each section."
        ],
        grids={"explorer": _grid(scenes, sliders)},
        measures={"sliders": [slider.name for slider in sliders], "amounts": AMOUNTS.tolist()},
        pages={"explorer": explorer(scenes, sliders, AMOUNTS.tolist(), about)},
    )


def _sliders(studio: Studio, found: Sequence[tuple[Directions, int]], leading: int) -> list[Slider]:
    return [
        Slider(
            name=f"Direction {i + 1}" if i < leading else f"Section {i - leading}",
            short=f"z {i + 1}" if i < leading else f"s {i - leading}",
            group="Directions of the whole z"
            if i < leading
            else "Sections, each along its own first direction",
            words=_about(studio, one, number),
        )
        for i, (one, number) in enumerate(found)
    ]


def _about(studio: Studio, one: Directions, number: int) -> str:
    """Its share of the variance, and the factor that it goes with, where factors are known."""
    words = f"{one.shares[number]:.0%} of variance"
    scores = one.scores(studio.training_z)[:, number : number + 1]
    ratios = {name: float(correlation_ratio(scores, y)[0]) for name, y in studio.training.labels.items()}
    if not ratios:
        return words
    best = max(ratios, key=lambda name: ratios[name])
    return f"{words}, eta² {ratios[best]:.2f} with {best}"


def _words(studio: Studio, number: int) -> str:
    """What an image shows, as far as labels say."""
    labels: dict[str, Any] = studio.examples[number]["labels"]
    return ", ".join(f"{name} {studio.class_names(name)[value]}" for name, value in labels.items())


def _grid(scenes: Sequence[Scene], sliders: Sequence[Slider]) -> Grid:
    """Of the first image: both ends of every slider."""
    first = scenes[0]
    columns = [
        (slider.short, [first.frames[i, 0], first.redrawn, first.frames[i, -1]])
        for i, slider in enumerate(sliders)
    ]
    titles = [f"-{REACH:g}", "0", f"+{REACH:g}"]
    caption = (
        "Both ends of every slider, first image: directions of z (z 1, ...) and of its sections (s 0, ...)."
    )
    return Grid(columns=columns, caption=caption, row_titles=titles)
