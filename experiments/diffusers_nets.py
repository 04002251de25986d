"""A U-Net in the layout of the `diffusers` library, as a DDAE: config.json and diffusion_pytorch_model.* of one folder.

Its time k = 0 .. 999 is our t = (k + 1) / 1000, or noise level k + 1. The folder may be that of the whole pipeline.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soda_jax.nn.diffusers_weights import USUAL, unet_fields, unet_params
from soda_jax.nn.torch_weights import read
from soda_jax.types import Tree

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCHEDULE |= {"trained_betas": None, "rescale_betas_zero_snr": False}  # each another schedule where it is set


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where the parts are. FileNotFoundError, naming --init, where one is missing."""

    path: Path  # of config.json
    weights: Path

    @classmethod
    def of(cls, init: str) -> "Folder":
        """Of a folder, that of a pipeline, or a file of weights."""
        given = Path(init)
        places = [given.parent] if given.is_file() else [given, given / "unet"]
        path = next((place for place in places if (place / "config.json").is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"--init={init}: expected a folder of diffusers with a config.json, found none"
            )
        files = [given] if given.is_file() else [path / name for name in FILES if (path / name).is_file()]
        if not files:
            raise FileNotFoundError(f"--init={init}: expected {' or '.join(FILES)} in {path}, found neither")
        return cls(path=path, weights=files[0])

    @property
    def config(self) -> dict[str, Any]:
        """config.json. ValueError where it is no JSON."""
        return described(self.path / "config.json")

    @property
    def scheduler(self) -> dict[str, Any]:
        """That of the noise; {} where none lies by."""
        places = (self.path, self.path / "scheduler", self.path.parent / "scheduler")
        found = [place / "scheduler_config.json" for place in places]
        return next((described(path) for path in found if path.is_file()), {})


def described(path: Path) -> dict[str, Any]:
    """A file of JSON. ValueError where it is none."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"--init: {path} is not JSON ({error})") from error


def keys_of(folder: Folder) -> dict[str, Any]:
    """{"model.channels": 128, ...}: what the config of a run with this net must say.

    Raises ValueError, naming the key of its files, for an architecture or a noise that is not known here.
    """
    c, fields = folder.config, unet_fields(folder.config)
    channels, side = fields.pop("out_channels"), c.get("sample_size", USUAL["sample_size"])
    found = {f"model.{name}": value for name, value in fields.items()} | {
        "model.denoiser": "unet",
        "model.patch": 1,
        "ddae.augment": 0.0,
        "ddae.self_condition": "",
    }
    sides = {f"data.{name}": side for name in ("image_size", "source_size")} if isinstance(side, int) else {}
    return {**found, **sides, "data.channels": channels, **noise_of(folder.scheduler)}


def noise_of(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Of diffusion.*; DDPM's where nothing is said. ValueError for another schedule."""
    apart = [key for key, value in SCHEDULE.items() if scheduler.get(key, value) != value]
    kind = scheduler.get("prediction_type", "epsilon")
    if apart or kind not in PREDICTIONS:
        key, known = (apart[0], SCHEDULE[apart[0]]) if apart else ("prediction_type", list(PREDICTIONS))
        raise ValueError(
            f"scheduler_config.json: {key} = {scheduler[key]!r} is not known here, expected {known}"
        )
    prediction = PREDICTIONS[kind]
    fixed = {"diffusion.framework": "ddpm", "diffusion.schedule": "linear", "diffusion.steps": 1000}
    return {**fixed, "diffusion.prediction": prediction, "diffusion.loss_in": prediction}


def params_of(folder: Folder) -> Tree:
    """The parameters, as the file has them. Raises what `read` and `unet_params` raise."""
    cosines_first = folder.config.get("flip_sin_to_cos", USUAL["flip_sin_to_cos"])
    return unet_params(read(folder.weights), cosines_first)
