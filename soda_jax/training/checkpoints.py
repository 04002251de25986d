"""Checkpoints on orbax v1: written in the background, the last N kept, readable on any number of devices.

Beside the state a checkpoint carries `config`, `versions` and `progress` (the sums of the log since its last
line), so that a run goes on from it as if it had never stopped. Data and draws follow from the step.
"""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np
import optax
import orbax.checkpoint
from etils import epath
from orbax.checkpoint import v1 as ocp

from soda_jax.parallel.processes import process_index
from soda_jax.types import Tree

Json = dict[str, Any]


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, found or read; says where, and what to do."""


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for what is still being written."""

    def __init__(self, directory: str | epath.PathLike, *, keep: int, metadata: Mapping[str, Any]):
        """keep: how many of the latest stay; metadata (JSON) goes into each checkpoint."""
        if keep < 1:
            raise ValueError(f"checkpoint.keep must be 1 or more, found {keep}")
        self.directory = epath.Path(directory)
        self._metadata = dict(metadata)
        self._orbax = _open(self.directory, keep)
        self._pending: tuple[int, Any] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.wait()
        self._orbax.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        found = self._orbax.latest
        return None if found is None else found.step

    def save(self, step: int, state: Tree, progress: Json) -> None:
        """Copies the state and writes it in the background; the arrays may be donated right after."""
        self.wait()
        if self.latest == step:
            return
        metadata = {**self._metadata, "progress": progress}
        try:
            check_writable(self.directory)
            self._pending = (step, self._orbax.save_async(step, state, force=True, custom_metadata=metadata))
        except OSError as error:
            raise self._unwritten(step, error) from error

    def wait(self) -> None:
        """Until the last save is whole on disk; raises CheckpointError if it failed."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending[1].result()
        except Exception as error:
            raise self._unwritten(pending[0], error) from error

    def restore(self, step: int, abstract: Tree) -> Tree:
        """The state of a step, placed as `abstract` says (ShapeDtypeStructs with shardings)."""
        return load(self.directory, step, abstract)

    def metadata(self, step: int) -> Json:
        """config, versions and progress of a checkpoint."""
        return metadata(self.directory, step)

    def _unwritten(self, step: int, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint of step {step} could not be written to {self.directory} ({_brief(error)}): "
            "make room there or make it writable; the same command then goes on from the last whole one"
        )


def steps(directory: str | epath.PathLike) -> list[int]:
    """Steps of the whole checkpoints, ascending; none where there is no such folder."""
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def metadata(directory: str | epath.PathLike, step: int) -> Json:
    """What was saved beside the state: config, versions, progress."""
    return dict(ocp.metadata(_whole(directory, step)).custom_metadata or {})


def load(directory: str | epath.PathLike, step: int | None, abstract: Tree, *, partial: bool = False) -> Tree:
    """The state of a step (None: the latest), as `abstract` places it. partial: only what that names is read.

    Raises CheckpointError where there is no such checkpoint or it holds other arrays.
    """
    return load_once(_whole(directory, step), abstract, partial=partial)


def load_once(path: str | epath.PathLike, abstract: Tree, *, partial: bool = False) -> Tree:
    """What `save_once` wrote, or one whole checkpoint, as of `load`."""
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    try:
        with context:
            return ocp.load(path, abstract)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {path} does not hold what the config describes ({_brief(error)}): "
            "take the config it was made with, or another workdir"
        ) from error


def restore_ema(directory: str | epath.PathLike, step: int | None, abstract: Tree) -> Tree:
    """The averaged variables alone, `{"params", "batch_stats"}`; step None: the latest.

    `abstract`: variables as ShapeDtypeStructs with shardings.
    """
    tree = {"ema_params": abstract["params"], "ema_batch_stats": abstract["batch_stats"]}
    tree = {name: part for name, part in tree.items() if part}
    loaded = load(directory, step, tree, partial=True)
    return {"params": loaded["ema_params"], "batch_stats": loaded.get("ema_batch_stats", {})}


def save_once(path: str | epath.PathLike, state: Tree, metadata: Json) -> None:
    """One state on its own, outside the sequence of checkpoints; replaces what was there."""
    ocp.save(path, state, overwrite=True, custom_metadata=metadata)


def versions() -> dict[str, str]:
    """Of the libraries that a checkpoint depends on."""
    libraries = {"jax": jax, "flax": flax, "optax": optax, "orbax": orbax.checkpoint, "numpy": np}
    return {name: library.__version__ for name, library in libraries.items()}


def check_writable(directory: epath.Path) -> None:
    """OSError, at once, where no file can be made: orbax takes minutes to say so."""
    trial = directory / f".writable_{process_index()}"
    trial.write_bytes(b"x" * 4096)
    trial.unlink()


def _open(directory: epath.Path, keep: int) -> ocp.training.Checkpointer:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_writable(directory)
        return ocp.training.Checkpointer(
            directory.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
    except OSError as error:
        raise CheckpointError(
            f"cannot keep checkpoints in {directory} ({_brief(error)}): choose another --workdir"
        ) from error


def _whole(directory: str | epath.PathLike, step: int | None) -> epath.Path:
    """The folder of a checkpoint; step None: the latest."""
    found = steps(directory)
    if not found:
        raise CheckpointError(f"no checkpoint in {directory} yet")
    if step is not None and step not in found:
        raise CheckpointError(f"no checkpoint of step {step} in {directory}: found {found}")
    return epath.Path(directory).absolute() / str(found[-1] if step is None else step)


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
