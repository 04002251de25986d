"""MODEL_CARD.md of a bundle, from plain data: what the encoder is, what it was measured to know, and its limits."""

from collections.abc import Mapping
from typing import Any

from soda_jax.export import numpy_encoder

COLUMNS = ("z", "pooled", "untrained", "pixels")
LIMITS = """It was trained on images of one data set alone: on others its features were not measured.
It sees images of one size, and the middle square of others. Features carry whatever the training images carry,
their biases among it; nothing was filtered. It is no classifier: decisions about people need more than a probe."""


def model_card(config: Mapping[str, Any], probe: Mapping[str, Any] | None, command: str, licence: str) -> str:
    """The text.

    Args:
      config: config.json of the bundle, with `method`, `step`, `images`, `data` and `versions`.
      probe: results.json of the probe of these features, None where there is none.
      command: what makes one.
      licence: of the weights; "" where nobody stated it.
    """
    return f"""# {config["method"]} encoder, step {config["step"]:,}

**Licence of the weights:** {licence or "not stated (ask whoever trained it)"}

| | |
|---|---|
| method | {config["method"]} |
| network | {network(config)} |
| features | {features(config)} |
| images | {" x ".join(map(str, config["image_shape"]))}, uint8 (preprocessing.json) |
| data | {data(config["data"])} |
| training | {config["images"]:,} images in {config["step"]:,} steps; averaged weights (EMA), in {config["dtype"]} |
| made with | {", ".join(f"{name} {version}" for name, version in config["versions"].items())} |

## What a probe of it found

{results(probe, command)}

## Limits

{LIMITS}

## Use

`soda_jax.export.load(FOLDER)` in JAX; {alone(config)} beside this file
need nothing of soda_jax: put the folder on Python's path and call their `load(FOLDER)`. All compute in float32 and give
the features in samples.npz to 1e-4 relative; training computed in {config["compute"]}. `sha256sum -c MANIFEST.sha256`
tells whether all is as it was written.
"""


def alone(config: Mapping[str, Any]) -> str:
    """The readers of this family that need nothing of soda_jax."""
    everywhere = config["family"] in numpy_encoder.NETWORKS
    names = (
        ("torch_encoder.py", "onnx_encoder.py", "numpy_encoder.py") if everywhere else ("onnx_encoder.py",)
    )
    return ", ".join(f"`{name}`" for name in names)


def network(config: Mapping[str, Any]) -> str:
    """resnet (depth 18, width 64, ...)"""
    fields = ", ".join(f"{name} {value}" for name, value in config["fields"].items())
    return f"{config['family']} ({fields})"


def features(config: Mapping[str, Any]) -> str:
    """z (832), pooled (512)"""
    return ", ".join(f"{name} ({width:,})" for name, width in config["features"].items())


def data(info: Mapping[str, Any]) -> str:
    """views3d: 4,096 train, 512 test examples (1a2b...)"""
    sizes = ", ".join(f"{size:,} {split}" for split, size in info["sizes"].items())
    return f"{info['name']}: {sizes} examples (manifest {info['manifest']})"


def results(probe: Mapping[str, Any] | None, command: str) -> str:
    """The table of the linear probe, in percent."""
    if probe is None:
        return f"No result is with this bundle: `{command}` makes one."
    head = [
        f"Linear probe, test accuracy in % [95% interval], {probe['sizes']['test']:,} images; beside it the same probe "
        "of the untrained encoder and of raw pixels.\n",
        f"| label | chance | {' | '.join(COLUMNS)} |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    rows = [
        f"| {label} | {probe['chance'][label]:.1%} | {' | '.join(cell(kinds[name]) for name in COLUMNS)} |"
        for label, kinds in probe["labels"].items()
    ]
    return "\n".join(head + rows)


def cell(scores: Mapping[str, Any]) -> str:
    """71.3 [69.9, 72.7]"""
    low, high = scores["linear_ci95"]
    return f"{scores['linear'] * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]"
