"""A U-Net in the layout of the `diffusers` library, as a DDAE: config.json and diffusion_pytorch_model.* of one folder.

Its time k = 0 .. 999 is our t = (k + 1) / 1000, or noise level k + 1. The folder may be that of the whole pipeline.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import runs
from experiments.job import Job
from experiments.probing import write_json
from soda_jax.nn.diffusers_weights import USUAL, unet_fields, unet_params
from soda_jax.nn.torch_weights import read
from soda_jax.parallel.preflight import check_alike
from soda_jax.types import Tree

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
Say = Callable[[str], None]


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


def initial_net(job: Job, say: Say) -> Tree | None:
    """What a DDAE with ddae.init begins with, on the host; None without. init.json says what it was.

    Raises ValueError, naming what does not fit, of the config or of the weights, and FileNotFoundError.
    """
    init = job.config.ddae.init
    if not init:
        return None
    folder = Folder.of(init)
    check_config(init, keys_of(folder), dict(runs.flat(job.config.to_dict())))
    params = unet_params(read(folder.weights), folder.config.get("flip_sin_to_cos", USUAL["flip_sin_to_cos"]))
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    check_weights(folder.weights, job.abstract.params["denoiser"], params)
    about = {"init": str(folder.weights), "net": runs.fingerprint(params)}
    check_alike({"the initial net": json.dumps(about)})
    say(f"the net begins as that of {folder.weights}")
    write_json(job.workdir / "init.json", about)
    return {"params": {"denoiser": params}}


def check_config(init: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """ValueError, with the flags to set, where the config is not that of the net; dropout is ours to choose."""
    free = ("model.dropout", "diffusion.loss_in")
    apart = [
        f"--config.{key}={value!r}"
        for key, value in wanted.items()
        if found[key] != value and key not in free
    ]
    if apart:
        raise ValueError(
            f"the config is not that of the net in --init={init}: set {' '.join(apart)}, or take "
            f"--config=experiments/configs/ddae_diffusers.py:{init}"
        )


def check_weights(path: Path, needed: Tree, params: Tree) -> None:
    """ValueError that names what is missing, what is too much, and what has another shape."""

    def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree.leaves_with_path(tree)
        return {jax.tree_util.keystr(name, simple=True, separator="/"): tuple(x.shape) for name, x in leaves}

    ours, theirs = shapes(needed), shapes(params)
    words = [f"lack {name} {list(ours[name])}" for name in sorted(ours.keys() - theirs.keys())]
    words += [f"hold {name}, which the config has not" for name in sorted(theirs.keys() - ours.keys())]
    both = sorted(ours.keys() & theirs.keys())
    words += [f"have {n} as {list(theirs[n])}, not {list(ours[n])}" for n in both if ours[n] != theirs[n]]
    if words:
        more = f", and {len(words) - 3} more" if len(words) > 3 else ""
        raise ValueError(f"{path} does not fit its config.json: the weights {'; '.join(words[:3])}{more}")
