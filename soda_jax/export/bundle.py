"""Bundles: one folder that holds a frozen encoder for any stack.

    params.safetensors     the weights, by their names and axes in Flax ("params/stem/conv/kernel": [h, w, in, out])
    orbax/                 the same as an orbax checkpoint, nested as Flax has them
    config.json            which network it is, its features, and how it was trained
    preprocessing.json     what images it takes
    encoder.stablehlo      the program for JAX, encoder.onnx the one for everything else
    samples.npz            16 images and the features that they must give
    *_encoder.py           readers that need neither JAX nor soda_jax
    MODEL_CARD.md          what to know before use
    MANIFEST.sha256        hashes of all of these, as `sha256sum -c` reads them

A bundle appears whole or not at all, and is checked against its hashes whenever it is read.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors.flax
from flax.traverse_util import unflatten_dict
from jaxtyping import UInt8
from orbax.checkpoint import v1 as ocp

from soda_jax.export import program
from soda_jax.export.encoders import Encoder, Images, check_images, describe, restored
from soda_jax.export.onnx_graph import to_onnx
from soda_jax.types import Features, Tree

FORMAT = 1  # raised when older readers would read a bundle wrongly
MANIFEST = "MANIFEST.sha256"
READERS = ("numpy_encoder.py", "onnx_encoder.py", "torch_encoder.py")
FILES = ("params.safetensors", "config.json", "preprocessing.json", "encoder.stablehlo", "encoder.onnx")
FILES += ("samples.npz", "MODEL_CARD.md", *READERS)
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
SAMPLES = 16


class BundleError(ValueError):
    """A folder that is no whole bundle, or one of a newer version; its text names the file and the fix."""


def write(
    folder: Path,
    encoder: Encoder,
    about: Mapping[str, Any],
    *,
    card: str,
    preprocessing: Mapping[str, Any],
    dtype: str = "float32",
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Writes the bundle of an encoder.

    Args:
      folder: where; it must not be there yet.
      encoder: as it was trained. Expected features are those of its weights as they are stored.
      about: further keys of config.json.
      card: MODEL_CARD.md.
      preprocessing: further keys of preprocessing.json.
      dtype: of the stored weights, "float32" or "bfloat16"; whoever reads them computes in float32.
      check: called with the finished folder before it gets its name; what it raises leaves no bundle.

    Raises:
      BundleError: the folder is there already.
      ValueError: the encoder's module is not in FAMILIES, or the dtype is unknown.
    """
    if folder.exists():
        raise BundleError(f"{folder} is there already: give another folder, or delete it")
    if dtype not in DTYPES:
        raise ValueError(f"expected a dtype of {list(DTYPES)}, found {dtype!r}")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
    part.mkdir(parents=True)
    try:
        fill(part, encoder, {"about": about, "preprocessing": preprocessing}, dtype)
        (part / "MODEL_CARD.md").write_text(card)
        seal(part)
        if check:
            check(part)
        return part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def fill(folder: Path, encoder: Encoder, words: Mapping[str, Mapping[str, Any]], dtype: str) -> None:
    """All files but the card and the manifest; words: what `write` takes as about and preprocessing."""
    tensors = stored(encoder.variables, dtype)
    (folder / "params.safetensors").write_bytes(safetensors.flax.save(dict(tensors)))  # it empties its dict
    config = {"format": FORMAT, **described(encoder, dtype), **words["about"]}
    config["encoder_sha256"] = sha256(folder / "params.safetensors")
    write_json(folder / "config.json", config)
    ocp.save(folder / "orbax", unflatten_dict(jax.device_get(tensors), sep="/"))
    write_json(folder / "preprocessing.json", {**input_of(encoder.image_shape), **words["preprocessing"]})
    (folder / "encoder.stablehlo").write_bytes(program.stablehlo(encoder, tensors))
    (folder / "encoder.onnx").write_bytes(to_onnx(encoder, tensors))
    images = sample_images(encoder.image_shape)
    features = {name: np.asarray(x) for name, x in expected(encoder, tensors, images).items()}
    np.savez(folder / "samples.npz", images=images, **features)
    for reader in READERS:
        shutil.copy(Path(__file__).with_name(reader), folder / reader)


def seal(folder: Path) -> None:
    """Writes the manifest."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    hashes = [(sha256(folder / name), name) for name in names if name != MANIFEST]
    (folder / MANIFEST).write_text(manifest_text(hashes))


def load(folder: str | Path) -> Encoder:
    """The encoder of a bundle: `images -> {name: features}`, pure. BundleError where it is damaged or too new."""
    folder = Path(folder)
    config = opened(folder)
    tensors = safetensors.flax.load_file(folder / "params.safetensors")
    return Encoder(
        module=restored(config),
        variables=program.nested(tensors),
        image_shape=tuple(config["image_shape"]),
        features=tuple(config["features"]),
    )


def load_program(folder: str | Path) -> Callable[[Images], Features]:
    """The StableHLO program of a bundle with its weights, for uint8 images `[b, h, w, c]`. Raises as `load`."""
    folder = Path(folder)
    shape = tuple(opened(folder)["image_shape"])
    tensors = safetensors.flax.load_file(folder / "params.safetensors")
    exported = jax.export.deserialize(bytearray((folder / "encoder.stablehlo").read_bytes()))

    def encode(images: Images) -> Features:
        check_images(images, shape)
        if images.dtype != np.uint8:
            raise ValueError(
                f"this program takes uint8 images in 0..255, found {images.dtype}: use load() for floats"
            )
        return exported.call(tensors, images)

    return encode


def opened(folder: Path) -> dict[str, Any]:
    """config.json of a bundle whose files are as they were written. Raises BundleError."""
    verify(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["format"] > FORMAT:
        raise BundleError(
            f"{folder} has format {config['format']}, this version of soda_jax reads {FORMAT}: update soda_jax"
        )
    return config


def verify(folder: Path) -> None:
    """Raises BundleError, naming the file, unless every file of the bundle is there and as it was written."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise BundleError(f"{folder} is no bundle, it has no {MANIFEST}: make one with experiments.export")
    text = manifest.read_text(errors="replace")
    found = re.findall(r"([0-9a-f]{64})  ([\w./]+)\n", text)
    if manifest_text(found) != text or not {name for _, name in found} >= {*FILES}:
        raise BundleError(f"{manifest} is damaged: export, or copy, the bundle again")
    for digest, name in found:
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name} is missing: export, or copy, the bundle again")
        if sha256(folder / name) != digest:
            raise BundleError(
                f"{folder / name} is damaged, or was changed: export, or copy, the bundle again"
            )


# What is in the files ---------------------------------------------------------------------------------------


def stored(variables: Tree, dtype: str) -> dict[str, jax.Array]:
    """The named tensors, in the type in which they are kept."""
    return {name: jax.numpy.asarray(x, DTYPES[dtype]) for name, x in program.flat(variables).items()}


def expected(encoder: Encoder, tensors: program.Tensors, images: Images) -> Features:
    """What the weights, as they are stored, make of the images; products in full float32 on any device."""
    with jax.default_matmul_precision("highest"):
        return program.function(encoder)(tensors, jax.numpy.asarray(images))


def described(encoder: Encoder, dtype: str) -> dict[str, Any]:
    """What a reader must know of the network."""
    abstract = jax.ShapeDtypeStruct((1, *encoder.image_shape), np.uint8)
    shapes = jax.eval_shape(lambda images: encoder(images), abstract)
    features = {name: int(shapes[name].shape[1]) for name in encoder.features}
    fields = {"image_shape": list(encoder.image_shape), "features": features, "dtype": dtype}
    return {**describe(encoder.module), **fields}


def input_of(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Of what preprocessing.json says, the part that every encoder has in common."""
    height, width, channels = shape
    return {
        "size": {"height": height, "width": width},
        "channels": channels,
        "colours": "grey" if channels == 1 else "RGB",
        "layout": "NHWC",
        "input": "uint8 in 0..255 (every reader), or float32 in [-1, 1] (JAX, PyTorch and numpy readers)",
        "range": [-1.0, 1.0],
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "formula": "(u / 255 - mean) / std for u in 0..255, which every reader does to uint8 images itself",
    }


def sample_images(shape: tuple[int, int, int]) -> UInt8[np.ndarray, "b h w c"]:
    """Sixteen made-up images, uint8, from blurred to plain noise: no picture of a data set leaves with a bundle."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(SAMPLES):
        cells = 2 ** (1 + i % 5)
        coarse = rng.random((1, cells, cells, shape[2]), np.float32)
        images.append(jax.image.resize(jax.numpy.asarray(coarse), (1, *shape), "linear")[0])
    return np.asarray(jax.numpy.stack(images) * 255).astype(np.uint8)


def manifest_text(hashes: Sequence[tuple[str, str]]) -> str:
    """(SHA-256, name) of each file, as `sha256sum` writes them."""
    return "".join(f"{digest}  {name}\n" for digest, name in hashes)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Indented, for people to read."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def sha256(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
