"""Draws from a run: `python -m experiments.sample --workdir=DIR [--mode=pictures] [--step=N] [--seed=0]`.

--mode=pictures   DIR/samples/<step>_views.png, _interpolation.png and _sections.png: what z draws, from the z of
                  one image to that of another, and with one section of it taken from another
--mode=reconstruction   DIR/reconstruction/<step>/: the test split encoded and drawn again, --steps=1,2,5,... at a
                  time, from noise that is drawn and from noise that inversion finds: PSNR, SSIM, MSE, a picture
--mode=novel_views  DIR/novel_views/<step>/results.json, views.png, orbit.gif and orbit.png: held-out scenes as
                  other cameras see them, held against a copy of the source and a regressor of the same size
--mode=images   DIR/images/<step>_<seed>/00000.png, ...: from nothing, of a DDAE, and a square of them in DIR/samples
--mode=unconditional   PRIOR/unconditional/<step>/: images from nothing, and how far they are from real ones; --workdir
                  is that of a latent prior, --decoder of its SODA run where that has moved
The same command again finds what is there; the same seed draws the same.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments import cluster, images, novel_views, pictures, reconstruction, unconditional, xla_flags
from experiments.probing import print_once
from experiments.runs import Run, open_trained

# mode -> what draws: it gets the run, at a step, and the command line, and returns the paths of what to look at
MODES: Mapping[str, Callable[[Run, argparse.Namespace], list[Path]]] = {
    "pictures": pictures.run_mode,
    "reconstruction": reconstruction.run_mode,
    "novel_views": novel_views.run_mode,
    "unconditional": unconditional.run_mode,
    "images": images.run_mode,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()

    def work() -> None:
        paths = MODES[arguments.mode](open_trained(arguments.workdir, arguments.step), arguments)
        print_once(f"{arguments.mode}: " + ", ".join(str(path) for path in paths))

    folder = Path(arguments.workdir)
    return cluster.carry_out(
        "experiments.sample", arguments, folder, work, if_stopped="draws what is missing"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sample",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--mode", choices=list(MODES), default="pictures", help="what to draw")
    parser.add_argument("--step", type=int, help="checkpoint to draw from (default: the newest)")
    parser.add_argument("--seed", type=int, default=0, help="of images and noise (default: 0)")
    parser.add_argument("--count", type=int, default=8, help="rows of the first picture (default: 8)")
    parser.add_argument(
        "--steps",
        type=numbers,
        default=reconstruction.STEPS,
        metavar="N,N,...",
        help="reconstruction: how many, each a point of the curve (default: 1,2,5,10,20,50,100)",
    )
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="so many images (default: reconstruction all, else 1024)",
    )
    novel_views.add_arguments(parser)
    unconditional.add_arguments(parser)
    cluster.add_arguments(parser)
    return parser


def numbers(text: str) -> tuple[int, ...]:
    """ "1,2,5" as numbers."""
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
