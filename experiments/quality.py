"""How far two sets of images are apart, as distributions:

    python -m experiments.quality --a=FOLDER|tfds:NAME[:train|:test] --b=... --out=FILE.json

The Frechet and the kernel distance (with its 95% interval), in every space that is asked for:

--space=random_resnet18   a network that was never trained, independent of any model under test (default)
--space=run:DIR           pooled features of the encoder of a run, at its newest checkpoint
--space=bundle:DIR        those of an encoder that experiments.export wrote
--inception=PATH          FID and KID: PATH is the public file pt_inception-2015-12-05-6726825d.pth, or the same weights
                          in another file, under another name

--space may be given several times. Images are cut to their middle square and scaled to one size (--size; an encoder
takes its own). Numbers of different spaces, sizes or numbers of images do not compare. Nothing is held in memory but
sums and a sample of 10,000 features. The same command again finds the result there.

--images=N       N images of each set at most, drawn at random, the same ones every time (default: all)
--data_dir=DIR   where data sets lie (default: as config.data.dir)
--batch=256      images at a time, on all devices together
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import cluster, xla_flags
from experiments.image_sets import ImageSet, check_ahead, image_set
from experiments.probing import print_once, write_json
from experiments.spaces import space_of
from soda_jax.evaluation import feature_spaces
from soda_jax.evaluation.feature_spaces import Space, by_space, distances
from soda_jax.parallel.preflight import check_alike

DEFAULT = "random_resnet18"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when the whole result is there."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()

    def work() -> None:
        print_once(words(measure(arguments)))

    folder = Path(arguments.out).parent
    return cluster.carry_out("experiments.quality", arguments, folder, work, if_stopped="begins again")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result, from --out if it is there and is this one.

    Raises:
      DataError: a set cannot be read.
      ValueError: the arguments do not fit, or --out is there and is another result.
    """
    check_arguments(arguments)
    a, b = (image_set(name, arguments.data_dir, arguments.images) for name in (arguments.a, arguments.b))
    size = arguments.size or min(a.side, b.side)
    if arguments.size:  # told before weights are read
        check_size([a, b], [size])
    spaces = opened(arguments)
    check_size([a, b], [space.size or size for space in spaces])
    made_from = {"a": a.key, "b": b.key, "size": size, "spaces": [space.name for space in spaces]}
    check_alike({"what is measured": json.dumps(made_from)})
    out = Path(arguments.out)
    if out.exists():
        return there(out, made_from)
    found = by_space(_in_space(space, a, b, size, arguments.batch) for space in spaces)
    result = {"a": arguments.a, "b": arguments.b, **found, "made_from": made_from}
    write_json(out, result)
    print_once(f"wrote {out}")
    return result


def _in_space(space: Space, a: ImageSet, b: ImageSet, size: int, batch: int) -> dict[str, Any]:
    read = {"size": space.size or size, "channels": space.channels, "batch": batch, "say": print_once}
    return distances(
        space, a.batches(f"a for {space.name}", **read), b.batches(f"b for {space.name}", **read)
    )


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what would fail after hours."""
    check_ahead(arguments.out, ".json", arguments.batch)
    if arguments.images is not None and arguments.images < 2:
        raise ValueError(f"--images={arguments.images}: expected 2 or more")
    if arguments.size is not None and arguments.size < 1:
        raise ValueError(f"--size={arguments.size}: expected 1 pixel or more")


def check_size(sets: Sequence[ImageSet], sizes: Sequence[int]) -> None:
    """Raises DataError where images of these sides cannot be made of a set."""
    for size in dict.fromkeys(sizes):
        for images in sets:
            images.check(size)


def opened(arguments: argparse.Namespace) -> list[Space]:
    """The spaces that are asked for. Raises ValueError for an unknown one, and what reading them raises."""
    names = arguments.space or ([] if arguments.inception else [DEFAULT])
    spaces = [space_of(name) for name in dict.fromkeys(names)]
    return spaces + ([feature_spaces.inception(arguments.inception)] if arguments.inception else [])


def there(out: Path, made_from: Mapping[str, Any]) -> dict[str, Any]:
    """The result that is there. ValueError where it is another one, or none."""
    try:
        found = json.loads(out.read_text())
        alike = found["made_from"] == made_from
    except (ValueError, KeyError, TypeError):
        alike = False
    if not alike:
        raise ValueError(
            f"{out} is there already, of other images or spaces: give another --out, or delete it"
        )
    print_once(f"the result is there already: {out}")
    return found


def words(result: Mapping[str, Any]) -> str:
    """What a person wants to read of it."""
    lines = [f"{result['n']['a']:,} and {result['n']['b']:,} images"]
    for name, value in result["frechet"].items():
        fid = name == feature_spaces.INCEPTION
        lines.append(f"  {'FID' if fid else 'Frechet distance'} in {name}: {value:.6g}")
        if kernel := result["kernel"][name]:
            low, high = kernel["ci95"]
            title = "KID" if fid else "kernel distance"
            lines.append(f"  {title} in {name}: {kernel['value']:.4g} (95%: {low:.4g} to {high:.4g})")
        lines += [f"    {text}" for text in result["cautions"][name]]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.quality",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("--a", "--b"):
        parser.add_argument(name, required=True, metavar="FOLDER|tfds:NAME[:SPLIT]", help="a set of images")
    parser.add_argument("--out", required=True, metavar="FILE", help="the result, x.json")
    parser.add_argument("--space", action="append", metavar="SPACE", help="see above; several times")
    parser.add_argument("--inception", metavar="PATH", help="weights of FID's network")
    parser.add_argument("--size", type=int, help="pixels a side (default: those of the smaller images)")
    parser.add_argument("--images", type=int, help="of each set at most (default: all)")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="where data sets lie")
    parser.add_argument("--batch", type=int, default=256, help="images at a time (default: 256)")
    cluster.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
