"""Reads a bundle of soda_jax with onnxruntime; this file needs nothing else of the project.

    from onnx_encoder import load
    features = load("BUNDLE")(images)          # {"z": [b, n], "pooled": [b, m]}, float32

Images are uint8 [b, h, w, c] in 0..255.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime

FORMAT = 1
NEEDED = {"config.json", "encoder.onnx"}


def load(folder, **options):
    """The encoder of a bundle; `options` go to onnxruntime.InferenceSession, such as providers=[...].

    ValueError where a file is missing or damaged, or the format is newer.
    """
    folder = Path(folder)
    verify(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["format"] > FORMAT:
        raise ValueError(f"{folder} has format {config['format']}, this file reads {FORMAT}: update soda_jax")
    return Encoder(config, onnxruntime.InferenceSession(str(folder / "encoder.onnx"), **options))


def verify(folder):
    """Raises ValueError, naming the file, unless all is as MANIFEST.sha256 says."""
    manifest = folder / "MANIFEST.sha256"
    if not manifest.is_file():
        raise ValueError(f"{folder} is no bundle: it has no MANIFEST.sha256")
    text = manifest.read_text(errors="replace")
    found = {name: digest for digest, name in re.findall(r"([0-9a-f]{64})  ([\w./]+)\n", text)}
    if "".join(f"{found[name]}  {name}\n" for name in found) != text or not found.keys() >= NEEDED:
        raise ValueError(f"{manifest} is damaged: copy the bundle again")
    for name, digest in found.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path} is missing or damaged: copy the bundle again")


class Encoder:
    """`images -> {name: features [b, n]}`."""

    def __init__(self, config, session):
        self.config, self.session = config, session

    def __call__(self, images):
        images, shape = np.asarray(images), self.config["image_shape"]
        if images.dtype != np.uint8 or images.ndim != 4 or list(images.shape[1:]) != shape:
            raise ValueError(
                f"expected uint8 images [b, {', '.join(map(str, shape))}] in 0..255, found {images.dtype} "
                f"{list(images.shape)}"
            )
        names = list(self.config["features"])
        return dict(zip(names, self.session.run(names, {"images": images}), strict=True))
