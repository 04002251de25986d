"""Alignment and uniformity over training, as lines of the terminal, a figure, and a section of the run's page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soda_jax.parallel import processes
from soda_jax.report import exhibit
from soda_jax.report.curves import Series, line_chart
from soda_jax.report.exhibit import Curves, Exhibit, Table

Found = Mapping[str, Any]


def text(found: Found) -> str:
    """A row a checkpoint and feature."""
    lines = [f"{'step':>10}  {'feature':<10} {'align':>8} {'uniform':>8}"]
    for row in found["steps"]:
        lines += [
            f"{row['step']:>10}  {name:<10} {value['align']:>8.4f} {value['uniform']:>8.4f}"
            for name, value in row["features"].items()
        ]
    return "\n".join(lines)


def curves_of(found: Found) -> list[Curves]:
    """Alignment against uniformity, a line a feature through the checkpoints, and either over training."""
    steps, names = found["steps"], [*found["steps"][-1]["features"]]

    def along(key: str, name: str) -> list[float]:
        return [row["features"][name][key] for row in steps]

    images = [row["images"] for row in steps]
    both = {name: (along("uniform", name), along("align", name)) for name in names}
    over = {key: {name: (images, along(key, name)) for name in names} for key in ("align", "uniform")}
    return [
        Curves(title="Alignment against uniformity, over training", x="uniformity", series=both),
        Curves(title="Alignment", x="images", series=over["align"]),
        Curves(title="Uniformity", x="images", series=over["uniform"]),
    ]


def leave(folder: Path, found: Found, command: str) -> None:
    """The figure, and the section of the run's page. Process 0 writes them."""
    if not processes.is_main():
        return
    curves = curves_of(found)
    last, settings = found["steps"][-1], found["settings"]
    rows = [
        [name, *(f"{row[key]:.4f}" for key in ("align", "uniform"))] for name, row in last["features"].items()
    ]
    views = (
        "two draws of noise on the same image"
        if "level" in settings
        else "two views of an image, as in training"
    )
    exhibit.write(
        folder,
        Exhibit(
            title="Do features agree, and do they spread?",
            order=6,
            paragraphs=[
                f"Of {settings['images']:,} training images, {views}: how far apart their features are on the sphere "
                "(alignment), and how evenly features of different images lie on it (uniformity). Smaller is better."
            ],
            tables=[Table(head=[f"step {last['step']}", "alignment", "uniformity"], rows=rows)],
            curves=curves,
            command=command,
        ),
    )
    lines = [Series(name=n, x=x, y=y, colour=i % 6) for i, (n, (x, y)) in enumerate(curves[0].series.items())]
    picture = line_chart(lines, title=curves[0].title, x_label=curves[0].x)
    (folder / "alignment.svg").write_text(
        picture.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )
