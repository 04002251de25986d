"""Writes a frozen encoder for any stack: `python -m experiments.export --workdir=DIR --out=BUNDLE [--step=N]`.

The folder BUNDLE then holds the averaged weights of the encoder of a run, its program for JAX and for ONNX, readers
for PyTorch, onnxruntime and numpy, sample images with their features, a model card and hashes of all of it
(soda_jax/export/bundle.py). How many devices trained it makes no difference.

--step=N      exports that checkpoint (default: the newest)
--dtype=...   of the stored weights: float32 (default) or bfloat16, half as large
--licence=... of the weights, for the model card

Of a DDAE, --config.ddae.draws=0 with .tap and .level exports its net up to that block, as an encoder of clean images.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import runs, xla_flags
from experiments.frozen import frozen
from experiments.runs import Run, open_run
from soda_jax.export import bundle, numpy_encoder
from soda_jax.export.encoders import Encoder, Images
from soda_jax.export.model_card import model_card
from soda_jax.methods.ddae import DDAE
from soda_jax.training.checkpoints import CheckpointError, versions
from soda_jax.training.signals import sigterm_raises, status_of
from soda_jax.types import Features

PREPROCESSING = {  # what data/views.py does to an image that is evaluated
    "crop": "the largest square in the middle",
    "interpolation": "bilinear; where it shrinks to half or less, means of whole blocks of pixels first",
}
ZOOMED = "the largest square in the middle, of which the middle, its sides 1 / {} of it"
PLACE = {"ddae.tap": str, "ddae.level": int, "ddae.draws": int}  # keys of a run's config that can be set here
AGREEMENT = 1e-4  # of readers, relative to the largest value of a feature
Reader = Callable[[Images], Features]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = _parser().parse_args(argv)
    xla_flags.set_up()
    try:
        with sigterm_raises():
            given = {
                key: value for key, value in vars(arguments).items() if key in PLACE and value is not None
            }
            run = open_run(arguments.workdir, arguments.step, given)
            export(run, Path(arguments.out), dtype=arguments.dtype, licence=arguments.licence)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"experiments.export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("experiments.export: stopped; the same command begins again", file=sys.stderr)
        return status_of(stop)
    return 0


def export(run: Run, out: Path, *, dtype: str = "float32", licence: str = "") -> Path:
    """Writes the bundle of a run's step, and checks it with every reader that can run here.

    Raises:
      ValueError: there is no checkpoint yet, the encoder has no family, or a reader does not agree.
      bundle.BundleError: `out` is there and is not this very bundle.
    """
    if run.step is None:
        raise ValueError(f"{run.checkpoints} has no checkpoint yet: train first, or give another --workdir")
    encoder, config = frozen(run), about(run)
    if out.exists() and is_this(out, encoder, config, dtype):
        print(f"step {run.step} is exported already: {out}")
        return out
    probed = None if isinstance(run.method, DDAE) else probe_of(run)  # a probe may have read another place
    card = model_card({**bundle.described(encoder, dtype), **config}, probed, probe_command(run), licence)
    print(f"exporting step {run.step}: {encoder_words(encoder)}", flush=True)
    contents = {"card": card, "preprocessing": preprocessing(run)}
    bundle.write(out, encoder, config, **contents, dtype=dtype, check=check_readers)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"wrote {out}, {size / 2**20:.1f} MiB")
    return out


def preprocessing(run: Run) -> dict[str, Any]:
    """What preprocessing.json says of images that are larger."""
    zoom = run.config.data.zoom
    return PREPROCESSING if zoom == 1 else {**PREPROCESSING, "zoom": zoom, "crop": ZOOMED.format(zoom)}


def about(run: Run) -> dict[str, Any]:
    """What config.json says of the training."""
    info = {name: run.data_info[name] for name in ("sizes", "labels", "manifest")}
    return {
        "method": run.config.method,
        "step": run.step,
        "images": run.step * run.config.train.batch,
        "compute": run.config.model.dtype,
        "data": {"name": run.config.data.name, **info},
        "versions": versions(),
        "training_config": runs.plain(run.config),
    }


def is_this(out: Path, encoder: Encoder, config: Mapping[str, Any], dtype: str) -> bool:
    """Whether a bundle holds these weights of this training already. Raises BundleError where it is damaged."""
    found = bundle.opened(out)
    config = json.loads(json.dumps({**bundle.described(encoder, dtype), **config}))
    kept = {name: found.get(name) for name in config}
    tensors = bundle.stored(encoder.variables, dtype)
    there = numpy_encoder.tensors(out / "params.safetensors")
    alike = tensors.keys() == there.keys() and all(
        np.array_equal(np.asarray(x, np.float32), there[name]) for name, x in tensors.items()
    )
    return alike and kept == config


def probe_command(run: Run) -> str:
    """What measures the features of a bundle of this run."""
    place = [f"--config.{key}={run.config.ddae[key.removeprefix('ddae.')]}" for key in PLACE]
    return " ".join(
        ["python -m experiments.probe --workdir=DIR", *(place if isinstance(run.method, DDAE) else ())]
    )


def probe_of(run: Run) -> dict[str, Any] | None:
    """The results of the probe of a run's step, if it was probed."""
    path = run.workdir / "probe" / str(run.step) / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def encoder_words(encoder: Encoder) -> str:
    """z (832) and pooled (512) of 64 x 64 x 3 images"""
    features = bundle.described(encoder, "float32")["features"]
    names = " and ".join(f"{name} ({width:,})" for name, width in features.items())
    return f"{names} of {' x '.join(map(str, encoder.image_shape))} images"


# Readers against the expected features -----------------------------------------------------------------------


def check_readers(out: Path) -> None:
    """Says how far each reader is from samples.npz. ValueError where one is too far."""
    for name, reader in readers(out).items():
        distance = difference(out, reader)
        print(f"  {name:<22} agrees to {distance:.1e}")
        if not distance <= AGREEMENT:
            raise ValueError(
                f"the {name} reader is off by {distance:.1e}, expected {AGREEMENT:g} or less: nothing was exported"
            )


def readers(out: Path) -> dict[str, Reader]:
    """Those that this environment can run."""
    found: dict[str, Reader] = {"JAX": bundle.load(out), "JAX, StableHLO": bundle.load_program(out)}
    if bundle.opened(out)["family"] in numpy_encoder.NETWORKS:
        found["numpy"] = numpy_encoder.load(out)
    else:
        print(
            "  numpy_encoder.py and torch_encoder.py do not read a net like this one: JAX and onnxruntime do"
        )
    try:
        from soda_jax.export import onnx_encoder  # onnxruntime is an extra

        found["onnxruntime"] = onnx_encoder.load(out)
    except ImportError:
        print("  onnxruntime is not installed: encoder.onnx was not run")
    return found


def difference(out: Path, reader: Reader) -> float:
    """Largest distance from the expected features, relative to the largest of each."""
    with np.load(out / "samples.npz") as samples:
        expected = dict(samples)
    found = reader(expected.pop("images"))
    return max(float(np.abs(found[k] - want).max() / np.abs(want).max()) for k, want in expected.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.export",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder to write; not there yet")
    parser.add_argument("--step", type=int, help="checkpoint to export (default: the newest)")
    parser.add_argument(
        "--dtype", choices=list(bundle.DTYPES), default="float32", help="of the stored weights"
    )
    parser.add_argument("--licence", default="", help="of the weights, for the model card")
    for key, kind in PLACE.items():
        parser.add_argument(
            f"--config.{key}", dest=key, type=kind, help="of a DDAE, as experiments.probe has it"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
