"""How near drawings come to the target, by sampler and by calls of the network:

    python -m experiments.benchmarks.samplers --workdir=DIR [--step=N] [--count=64] [--calls=5,10,20,50]

Draws the target of each of `count` test pairs once from the source's z, all samplers from the same noise, without
guidance, and prints PSNR in dB (SSIM) against the target, means over the pairs. Of use where the denoiser is told which
view to paint (model.rays), or where source and target are one view.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from experiments import build, xla_flags
from experiments.drawing import Draw, draw
from experiments.pictures import along_rows, beside, choose, read, source_of, two_views
from experiments.runs import Run, open_run
from soda_jax.evaluation.image_quality import psnr, ssim
from soda_jax.methods.base import to_float
from soda_jax.training.checkpoints import CheckpointError

KINDS = ("ddim", "ddpm", "heun", "dpm++2m")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()
    try:
        run = open_run(arguments.workdir, arguments.step)
        calls = [int(number) for number in arguments.calls.split(",")]
        print(table(measure(run, calls, arguments.count)))
    except (ValueError, OSError, CheckpointError) as error:
        print(f"experiments.benchmarks.samplers: {error}", file=sys.stderr)
        return 1
    return 0


def measure(run: Run, calls: Sequence[int], count: int) -> dict[tuple[str, int], tuple[float, float]]:
    """(sampler, calls) -> PSNR and SSIM; says each as it is known. ValueError where there is no checkpoint."""
    if run.step is None:
        raise ValueError(f"{run.checkpoints} has no checkpoint yet: train first, or give another --workdir")
    source = source_of(run)
    seen = two_views(source, choose(source, count, 0), build.views(run.config), 0)
    found = {}
    for kind in KINDS:
        for number in calls:
            started = time.monotonic()
            found[kind, number] = scores(run, kind, number, seen)
            cell = "{:.2f} dB ({:.3f})".format(*found[kind, number])
            print(f"{kind}, {number} calls: {cell}, {time.monotonic() - started:.0f} s", flush=True)
    return found


def scores(run: Run, kind: str, calls: int, seen: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Mean PSNR and SSIM of one drawing of each target."""
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.samples.update(sampler=kind, steps=steps_for(kind, calls), guidance=0.0)
        config.samples.update(variance="posterior", grid="even")
    encode, paint = draw(config, run.method, run.ema_variables(), 0)
    seen = read(encode, seen)
    rows = Draw(
        z=seen["z"][:, None],
        noise=np.arange(len(seen["source"]))[:, None],
        cameras=along_rows(beside(seen), 1),
    )
    drawn, target = (to_float(jnp.asarray(x)) for x in (paint([rows])[0][:, 0], seen["target"]))
    return float(psnr(drawn, target).mean()), float(ssim(drawn, target).mean())


def steps_for(kind: str, calls: int) -> int:
    """The most steps that need no more calls: of Heun's, all but the first and the last need two."""
    return max(calls // 2 + 1, 1) if kind == "heun" else calls


def table(found: Mapping[tuple[str, int], tuple[float, float]]) -> str:
    """In Markdown, a row a number of calls."""
    calls = sorted({number for _, number in found})
    lines = [f"| calls | {' | '.join(KINDS)} |", "|---|" + "---|" * len(KINDS)]
    for number in calls:
        cells = ("{:.2f} ({:.3f})".format(*found[kind, number]) for kind in KINDS)
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.samplers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest)")
    parser.add_argument("--count", type=int, default=64, help="pairs (default: 64)")
    parser.add_argument("--calls", default="5,10,20,50", help="of the network (default: 5,10,20,50)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
