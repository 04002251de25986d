"""A workdir on disk: what a run leaves behind, and how another process opens it."""

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from data.sources import DataSet
from experiments import build, methods
from experiments.configs import default
from experiments.xla_flags import jit_seldom
from soda_jax.methods.base import BatchSpec, Method
from soda_jax.training import checkpoints
from soda_jax.types import Tree

# Keys that may differ between a checkpoint and the run that goes on from it: they change no number of it.
FREE = (
    "compilation_cache",
    "data.dir",
    "data.workers",
    "data.threads",
    "data.prefetch",
    "train.images",
    "train.minutes",
    "train.log_every_images",
    "train.allow_config_change",
    "train.watchdog_minutes",
    "checkpoint.",
    "samples.",
    "monitor.",
    "probe.",
    "disentanglement.",
    "prior.workdir",  # checkpoints hold the encoder; where it came from may have moved
    "teacher.workdir",  # likewise
    "finetune.workdir",
    "ddae.init",
    "noisy_classifier.workdir",
    "mesh.",  # but for rounding, and for BatchNorm where a plan is folded, which the log says
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is needed to use what a run has learned."""

    workdir: Path
    config: ConfigDict
    method: Method
    spec: BatchSpec
    step: int | None  # of the checkpoint that is meant; None: there is none yet
    data_info: Mapping[str, Any]

    @property
    def checkpoints(self) -> Path:
        """Their folder."""
        return self.workdir / "checkpoints"

    def steps(self) -> list[int]:
        """Of the checkpoints that are there now."""
        return checkpoints.steps(self.checkpoints)

    def ema_variables(self, step: int | None = None) -> Tree:
        """The averaged variables of a step (default: `self.step`), on one device of this process."""
        return self._restored(step, self.abstract_variables())

    def encoder_variables(self, step: int | None = None) -> Tree:
        """Of these, the encoder's; the denoiser's are not read."""
        parts = {k: _encoder_part(tree) for k, tree in self.abstract_variables().items()}
        return self._restored(step, parts, partial=True)

    def _restored(self, step: int | None, abstract: Tree, partial: bool = False) -> Tree:
        place = SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract)
        step = self.step if step is None else step
        return checkpoints.restore_ema(self.checkpoints, step, placed, partial=partial)

    def untrained_variables(self) -> Tree:
        """The variables that training began with."""
        return jit_seldom(lambda key: self.method.init(key, self.spec))(build.init_key(self.config))

    def abstract_variables(self) -> Tree:
        """Shapes of the variables."""
        return jax.eval_shape(lambda key: self.method.init(key, self.spec), build.init_key(self.config))


def _encoder_part(tree: Mapping[str, Tree]) -> Mapping[str, Tree]:
    return {"encoder": tree["encoder"]} if "encoder" in tree else tree


def open_run(
    workdir: str | Path, step: int | None = None, overrides: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    """The run of a workdir; step None: its latest checkpoint, if it has one. overrides: {"ddae.level": 4, ...}.

    Damaged checkpoints are passed over, and said. Raises FileNotFoundError where there is no run, and where it
    has no checkpoint of that step, DamagedError where that one is damaged.
    """
    workdir = Path(workdir)
    saved = read_config(workdir)
    try:
        return _opened(workdir, saved, step, overrides)
    except (KeyError, AttributeError) as error:  # a key of the config, or of the record, is not there
        raise ValueError(
            f"{workdir}/config.json does not fit this version of soda_jax ({error}): use the one that wrote it"
        ) from error


def open_trained(workdir: str | Path, step: int | None = None) -> Run:
    """`open_run` of one that has a checkpoint. ValueError where it has none yet."""
    run = open_run(workdir, step)
    if run.step is None:
        raise ValueError(f"{run.checkpoints} has no checkpoint yet: train first, or give another --workdir")
    return run


def _opened(workdir: Path, saved: Mapping[str, Any], step: int | None, overrides: Mapping[str, Any]) -> Run:
    config = restored(saved["config"])
    with config.unlocked():
        config.update_from_flattened_dict(overrides)
    folder = workdir / "checkpoints"
    found = checkpoints.steps(folder)
    if step is not None and step not in found:
        raise FileNotFoundError(f"--step={step}: {folder} has {found or 'no checkpoint yet'}")
    if step is None:
        step = checkpoints.newest_good(folder, lambda text: print(text, flush=True))
    else:
        checkpoints.verify(folder, step)
    spec = build.batch_spec(config)
    return Run(
        workdir=workdir,
        config=config,
        method=methods.method(config, spec),
        spec=spec,
        step=step,
        data_info=saved["data_info"],
    )


def read_config(workdir: Path) -> dict[str, Any]:
    """workdir/config.json: {"config", "versions", "command", "data_info"}, lists as they are."""
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"--workdir={workdir}: expected a run, found no {path.name} there: "
            "start it with python -m experiments.train --config=... --workdir=..."
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): experiments.train writes it anew") from error


def write_config(
    workdir: Path, config: ConfigDict, versions: Mapping[str, str], info: Mapping[str, Any]
) -> None:
    """workdir/config.json, whole or not at all."""
    record = {"config": plain(config), "versions": versions, "command": command(), "data_info": info}
    part = workdir / "config.json.part"
    part.write_text(json.dumps(record, indent=2) + "\n")
    part.replace(workdir / "config.json")


def one_line(error: Exception) -> str:
    """What ml_collections says of a key, without its quotes and line breaks."""
    return str(error).replace("\\n", ", ").replace("\\", "").replace("'", "").strip('"')


def command() -> str:
    """The command line of this process, as it can be typed again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    start = ["python", "-m", spec.name] if spec else ["python", sys.argv[0]]
    return shlex.join([*start, *sys.argv[1:]])


def data_info(dataset: DataSet) -> dict[str, Any]:
    """What the report and the probe want to know of a data set, as JSON."""
    return {
        "image_shape": list(dataset.image_shape),
        "labels": dataset.labels,
        "label_names": dataset.label_names,
        "sizes": {name: len(source) for name, source in dataset.splits.items()},
        "views": dataset.views,
        "manifest": dataset.manifest,
    }


def fingerprint(variables: Tree) -> str:
    """16 hexadecimal digits that other weights do not have."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def plain(config: ConfigDict) -> dict[str, Any]:
    """As JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(config.to_dict()))


def decisive(config: ConfigDict, groups: Sequence[str]) -> dict[str, Any]:
    """These groups of keys, plain, without those that say how data are read: what results depend on."""
    kept = {name: value for name, value in plain(config).items() if name in groups}
    for name in ("dir", "workers", "threads", "prefetch"):
        del kept["data"][name]
    return {name: kept[name] for name in groups}


def digest(value: Any) -> str:
    """16 hexadecimal digits of a plain value: another one for another value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def restored(plain_config: Mapping[str, Any]) -> ConfigDict:
    """The config of a JSON record, completed; lists become the tuples they were."""
    return ConfigDict(_tuples(completed(plain_config))).lock()


def completed(plain_config: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of keys that did not exist yet when it was written: each does what was done before it."""
    return _over(plain(default.get_config()), plain_config)


def _over(defaults: Any, values: Any) -> Any:
    if not (isinstance(defaults, Mapping) and isinstance(values, Mapping)):
        return values
    return {**defaults, **{name: _over(defaults.get(name), value) for name, value in values.items()}}


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("model.channels", 128), ... of a plain config."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """ "key: old -> new" for each key of two plain configs that differs or is in one only."""
    old, new = dict(flat(old)), dict(flat(new))
    missing = "(none)"
    return [
        f"{key}: {old.get(key, missing)} -> {new.get(key, missing)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


def forbidden_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Those that make another run of it. `train.images` is one if the learning rate falls towards it."""
    cosine = new["optimizer"]["schedule"] == "cosine"
    free = tuple(key for key in FREE if not (cosine and key == "train.images"))
    return [line for line in differences(old, new) if not line.startswith(free)]


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
