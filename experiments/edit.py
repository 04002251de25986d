"""Edits what a run has learned: `python -m experiments.edit --workdir=DIR --mode=MODE [--step=N] [--seed=0]`.

--mode=interpolate  from the z of one image to that of another: lerp, slerp, and with the noise interpolated too
--mode=directions   principal components of z and of its sections, swept, with what they go with
--mode=attribute    z moved until a linear detector sees another class, and sums A - B + C of latents
--mode=mix          coarse, middle and fine sections of z from different images
--mode=manipulate   real images edited from their own noise, found by inversion, and from fresh noise
--mode=explorer     a page with sliders for directions and sections: DIR/edit/explorer/explorer.html
Each writes DIR/edit/<mode>/: pictures, results.json, and a section of the report. What was edited is judged by a
network trained on real pixels (DIR/edit/judge, made once). The same command again finds what is there.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments import cluster, xla_flags
from experiments.editing import attribute, directions, explorer, interpolate, manipulate, mix, outcome
from experiments.editing.outcome import Outcome
from experiments.editing.studio import Studio
from experiments.probing import print_once
from experiments.runs import Run, command, open_trained
from soda_jax.methods.soda import SODA

MODES: Mapping[str, Callable[[Studio], Outcome]] = {
    "interpolate": interpolate.run,
    "directions": directions.run,
    "attribute": attribute.run,
    "mix": mix.run,
    "manipulate": manipulate.run,
    "explorer": explorer.run,
}
ORDER = 60  # of the first mode on the page of the run
LEAST = {"count": 1, "images": 2, "fit": 2, "judge_images": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()

    def work() -> None:
        check(arguments)
        print_once(f"{arguments.mode}: " + ", ".join(str(path) for path in edit(arguments)))

    folder = Path(arguments.workdir)
    return cluster.carry_out("experiments.edit", arguments, folder, work, if_stopped="begins the mode again")


def check(arguments: argparse.Namespace) -> None:
    """ValueError, naming the flag, for a number that is too small."""
    for name, least in LEAST.items():
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be {least} or more, found {getattr(arguments, name)}")


def check_editable(run: Run) -> None:
    """ValueError, naming the key, for a run whose pictures z alone does not decide."""
    if not isinstance(run.method, SODA):
        raise ValueError(f"there is no z to edit in a run of config.method={run.config.method!r}")
    if run.method.cross_attention:
        raise ValueError(
            "edits change z, and with config.model.cross_attention=True the denoiser looks at the sources as well: "
            "take a run without it"
        )


def edit(arguments: argparse.Namespace) -> list[Path]:
    """The files of one mode, made unless they are there."""
    studio = Studio(open_trained(arguments.workdir, arguments.step), arguments)
    check_editable(studio.run)
    there = outcome.found(studio, arguments.mode)
    if there:
        print_once(f"{arguments.mode} of step {studio.run.step} is there already")
        return there
    made, order = MODES[arguments.mode](studio), ORDER + list(MODES).index(arguments.mode)
    return outcome.write(studio, arguments.mode, made, order, command())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.edit",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--mode", required=True, choices=list(MODES), help="what to do")
    parser.add_argument("--step", type=int, help="checkpoint to edit with (default: the newest)")
    parser.add_argument("--seed", type=int, default=0, help="of images and noise (default: 0)")
    parser.add_argument(
        "--count", type=int, default=4, help="images, or couples, that are shown (default: 4)"
    )
    parser.add_argument(
        "--images", type=int, default=32, help="images that are edited and measured (default: 32)"
    )
    parser.add_argument(
        "--fit",
        type=int,
        default=8192,
        help="training images that directions and detectors see (default: 8192)",
    )
    parser.add_argument(
        "--label", default="", help="attribute, manipulate: the label to change (default: each of them)"
    )
    parser.add_argument(
        "--judge_images", type=int, default=60_000, help="length of the judge's training (default: 60000)"
    )
    cluster.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
