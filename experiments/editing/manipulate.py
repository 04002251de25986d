"""--mode=manipulate: real images edited from their own noise, found by DDIM inversion: only the attribute moves.

The noise of an image under its z holds what z leaves open: place, shading, texture. Drawn from it with z moved to
another class, the image keeps these; drawn from fresh noise it does not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments import networks
from experiments.drawing import in_batches
from experiments.editing.attribute import Plan, chosen, plan
from experiments.editing.jury import Verdicts, changed, others, percent, share, words
from experiments.editing.outcome import Grid, Outcome
from experiments.editing.studio import Studio
from experiments.pictures import Rows, along_rows, cameras_of_rows
from soda_jax.diffusion.inversion import exact, inner_times
from soda_jax.editing.inversion import noise_of
from soda_jax.methods.base import to_float, to_uint8
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_whole, replicated
from soda_jax.report.exhibit import Table

STEPS = 20  # into the noise, and back
EDIT = "means A - B + C"  # of those of `attribute.py`: the one that reaches the class most often
KINDS = {"own": "its own noise", "fresh": "fresh noise"}


def run(studio: Studio) -> Outcome:
    """Every label, or the one that `--label` names."""
    plans = [plan(studio, label) for label in chosen(studio)]
    own, fresh = painted(studio, plans)  # [n, 1 + p, h, w, c], [n, 1 + p, h, w, c]
    drawn = {"own": own, "fresh": fresh}
    seen = {kind: studio.jury(images) for kind, images in drawn.items()}
    real = studio.jury(studio.plain["target"])
    found = {
        one.label: {
            kind: measured(studio, one, real, {k: v[:, i] for k, v in verdicts.items()})
            | {"distance": distance(drawn[kind][:, i], studio.plain["target"])}
            for kind, verdicts in seen.items()
        }
        for i, one in enumerate(plans, 1)
    }
    unedited = {kind: distance(images[:, 0], studio.plain["target"]) for kind, images in drawn.items()}
    return Outcome(
        title="Editing: real images, their own noise kept",
        paragraphs=[
            f"A test image goes back to noise under its own z (DDIM inversion, {STEPS} steps), and is drawn again from "
            "there with z moved to another class by the difference of the classes' means: what z leaves open stays as "
            "it was. Beside it the same z drawn from fresh noise. Distance: mean absolute difference from the real "
            "image, of values in 0..255; "
            + ", ".join(f"not edited, from {KINDS[kind]}: {value:.1f}" for kind, value in unedited.items())
            + "."
        ],
        grids={"manipulate": _grid(studio, plans, drawn)},
        measures={"labels": found, "unedited_distance": unedited, "judge": dict(studio.jury.report)},
        tables=[_table(studio, found)],
    )


def painted(studio: Studio, plans: Sequence[Plan]) -> tuple[np.ndarray, np.ndarray]:
    """z as it is and each plan's edit, from the images' own noise, and from fresh noise."""
    rows = list(range(len(studio.examples)))
    invert, develop = inversion(studio)
    cameras = cameras_of_rows(studio.plain, rows)
    noise = invert({"image": studio.plain["target"], "z": studio.z, **cameras})
    z = np.stack([studio.z, *(one.edits[EDIT] for one in plans)], axis=1)
    many = along_rows({"start": noise, **cameras}, z.shape[1]) | {"z": z}
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in many.items()}
    own = develop(flat).reshape(*z.shape[:2], *studio.plain["target"].shape[1:])
    return own, studio.paint([studio.order(z, rows)])[0]


def inversion(studio: Studio) -> tuple[Callable[[Rows], np.ndarray], Callable[[Rows], np.ndarray]]:
    """Rows of image, z and cameras to noise; and of start, z and cameras to uint8 images, by the run's sampler."""
    run, mesh = studio.run, make_mesh()
    method, variables = run.method, put_whole(studio.variables, mesh)
    sampler, guidance = exact(networks.sampler(run.config)), networks.guidance(run.config)
    grid, shape = inner_times(method.schedule, STEPS), studio.plain["target"].shape[1:]

    def into_noise(variables, rows):
        image, rest = to_float(rows["image"]), {"guidance": guidance, "cameras": rows}
        return noise_of(method, variables, image, rows["z"], grid, **rest)

    def back(variables, rows):
        rest = {"guidance": guidance, "cameras": rows, "noise": rows["start"], "grid": grid}
        return to_uint8(method.generate(variables, rows["z"], sampler, jax.random.key(0), shape, **rest))

    def batched(function: Callable) -> Callable[[Rows], np.ndarray]:
        program = jax.jit(function, out_shardings=replicated(mesh))
        return lambda rows: in_batches(lambda part: program(variables, part), rows, mesh)

    return batched(into_noise), batched(back)


def distance(drawn: np.ndarray, real: np.ndarray) -> float:
    """Mean absolute difference of two stacks of uint8 images."""
    return float(np.abs(drawn.astype(np.float32) - real.astype(np.float32)).mean())


def measured(studio: Studio, one: Plan, real: Verdicts, after: Verdicts) -> dict[str, Any]:
    """How often the wanted class is seen, and how often another factor than in the real image."""
    rest = others(studio.jury, one.label)
    drift = share(changed(real, after, rest)) if rest else None
    return {"accuracy": share(after[one.label] == one.wanted), "drift": drift}


def _grid(studio: Studio, plans: Sequence[Plan], drawn: Mapping[str, np.ndarray]) -> Grid:
    """Two rows an image: from its own noise and from fresh noise."""
    n = min(studio.arguments.count, len(studio.examples))
    both = np.stack([drawn[kind][:n] for kind in KINDS], axis=1)  # [n, 2, 1 + p, h, w, c]
    both = both.reshape(2 * n, *both.shape[2:])
    titles = ["not edited", *(one.label for one in plans)]
    columns = [("image", np.repeat(studio.plain["target"][:n], 2, axis=0))]
    columns += [(title, both[:, i]) for i, title in enumerate(titles)]
    return Grid(
        columns=columns,
        caption="Each label moved to another class, drawn from the image's own noise and from fresh noise.",
        row_titles=list(KINDS.values()) * n,
    )


def _table(studio: Studio, found: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        [label, KINDS[kind], percent(one["accuracy"]), *_rest(one)]
        for label, kinds in found.items()
        for kind, one in kinds.items()
    ]
    head = ["label", "from", "attribute accuracy", "identity drift", "distance"]
    caption = f"Drift: factors judged otherwise than in the real image. {words(studio.jury)}"
    return Table(head=head, rows=rows, caption=caption)


def _rest(one: Mapping[str, Any]) -> list[str]:
    return [percent(one["drift"]) if one["drift"] else "-", f"{one['distance']:.1f}"]
