"""Checkpoints on orbax v1: written in the background, the last N kept, readable on any number of devices.

Beside the state a checkpoint carries `config`, `versions` and `progress` (the sums of the log since its last
line), so that a run goes on from it as if it had never stopped. Data and draws follow from the step. Once orbax
has written it, it gets a manifest of content hashes (`integrity.py`), without which it does not count; older
ones are removed after that, so that the last whole one is there at any moment.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import flax
import jax
import numpy as np
import optax
import orbax.checkpoint
from etils import epath
from orbax.checkpoint import v1 as ocp

from soda_jax.methods.base import fixed, moving
from soda_jax.parallel.processes import is_main, process_index
from soda_jax.training.integrity import PROMISE, damaged_file, is_of_old, is_whole, write_manifest
from soda_jax.training.single_state import CheckpointError, brief, load_once, saving
from soda_jax.types import Tree

Json = dict[str, Any]


class DamagedError(CheckpointError):
    """A file of a checkpoint is not as it was written."""


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for what is still being written.

    A save that fails raises CheckpointError, at once or at the next call; with `on_failure` it is told instead.
    """

    def __init__(
        self,
        directory: str | epath.PathLike,
        *,
        keep: int,
        metadata: Mapping[str, Any],
        on_failure: Callable[[int, CheckpointError], None] | None = None,
    ):
        """keep: how many of the latest stay; metadata (JSON) goes into each checkpoint.

        on_failure: called with the step of a save that failed, and the error; training may then go on.
        """
        if keep < 1:
            raise ValueError(f"checkpoint.keep must be 1 or more, found {keep}")
        self.directory = epath.Path(directory)
        self._keep, self._metadata, self._on_failure = keep, dict(metadata), on_failure
        self._orbax = _open(self.directory)
        self._asked = (
            self.latest
        )  # the step that was saved last, or asked for: the same in every process at any moment
        self._background = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[int, Future] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._orbax.close()

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return max(steps(self.directory), default=None)

    def save(self, step: int, state: Tree, progress: Json) -> None:
        """Copies the state and writes it in the background; the arrays may be donated right after.

        A step that was asked for before is not saved again.
        """
        self.wait()
        if step == self._asked:
            return
        self._asked = step
        metadata = {**self._metadata, **PROMISE, "progress": progress}
        try:
            check_writable(self.directory)
            with saving():
                response = self._orbax.save_async(step, state, force=True, custom_metadata=metadata)
        except Exception as error:
            self._failed(step, error)
            return
        self._pending = (step, self._background.submit(self._finish, step, response))

    def wait(self) -> None:
        """Until the last save is whole on disk."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending[1].result()
        except Exception as error:
            self._failed(pending[0], error)

    def _finish(self, step: int, response: Any) -> None:
        """In the background: waits for orbax, adds the manifest, removes what is older than `keep`."""
        response.result()
        if is_main():
            write_manifest(self.directory / str(step))
            for old in steps(self.directory)[: -self._keep]:
                _remove(self.directory / str(old))

    def _failed(self, step: int, error: Exception) -> None:
        """Makes room again, and tells; what could not be written is of no use to anybody."""
        if is_main():
            with contextlib.suppress(OSError):
                for rest in self.directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                    rest.rmtree()
        told = CheckpointError(
            f"the checkpoint of step {step} could not be written to {self.directory} ({brief(error)}): "
            "make room there or make it writable; the same command then goes on from the last whole one"
        )
        if self._on_failure is None:
            raise told from error
        self._on_failure(step, told)

    def restore(self, step: int, abstract: Tree) -> Tree:
        """The state of a step, placed as `abstract` says (ShapeDtypeStructs with shardings).

        `newest_good` has read its files already, when the run began.
        """
        return load_once(_whole(self.directory, step), abstract)

    def metadata(self, step: int) -> Json:
        """config, versions and progress of a checkpoint."""
        return metadata(self.directory, step)


def steps(directory: str | epath.PathLike) -> list[int]:
    """Steps of the whole checkpoints, ascending; none where there is no such folder."""
    return [step for step, path in _folders(epath.Path(directory)) if is_whole(path)]


def newest_good(
    directory: str | epath.PathLike, say: Callable[[str], None], *, set_aside: bool = False
) -> int | None:
    """The newest step whose every file is as it was written; says which file of a newer one is damaged.

    set_aside: rename the damaged ones, so that training can save those steps again; nothing is deleted.
    """
    for step, path in reversed(_folders(epath.Path(directory))):
        bad = damaged_file(path)
        if bad is None:
            if is_of_old(path):
                say(f"the checkpoint of step {step} is of version 0.1.0: it has no hashes to check it by")
            return step
        aside = f"; it is kept as {_set_aside(path).name}" if set_aside else ""
        say(
            f"the checkpoint of step {step} is damaged or unfinished: {bad}{aside}; looking for the one before"
        )
    return None


def verify(directory: str | epath.PathLike, step: int) -> None:
    """Raises DamagedError, naming the file, unless every file of this step is as it was written."""
    bad = damaged_file(_whole(directory, step))
    if bad is not None:
        raise DamagedError(
            f"the checkpoint of step {step} is damaged: {bad} is not as it was written; "
            f"take another one of {[s for s in steps(directory) if s != step]}"
        )


def metadata(directory: str | epath.PathLike, step: int) -> Json:
    """What was saved beside the state: config, versions, progress."""
    return dict(ocp.metadata(_whole(directory, step)).custom_metadata or {})


def load(directory: str | epath.PathLike, step: int | None, abstract: Tree, *, partial: bool = False) -> Tree:
    """The state of a step (None: the latest), as `abstract` places it. partial: only what that names is read.

    Raises CheckpointError where there is no such checkpoint, it is damaged, or it holds other arrays.
    """
    path = _whole(directory, step)
    verify(directory, int(path.name))
    return load_once(path, abstract, partial=partial)


def load_as_saved(directory: str | epath.PathLike, step: int) -> dict[str, np.ndarray]:
    """Every array of a step on the host, by its name, whatever the config was."""
    path = _whole(directory, step)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), ocp.metadata(path).metadata
    )
    leaves = jax.tree.leaves_with_path(load(directory, step, abstract))
    return {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in leaves}


def restore_ema(
    directory: str | epath.PathLike, step: int | None, abstract: Tree, *, partial: bool = False
) -> Tree:
    """The averaged variables alone, `{"params", "batch_stats"}`; step None: the latest.

    `abstract`: variables as ShapeDtypeStructs with shardings. partial: the checkpoint may hold more parameters, which
    are not read. Raises CheckpointError where it does and may not, and what `load` raises.
    """
    path = _whole(directory, step)
    if not partial:
        _check_all_named(path, abstract["params"])
    stats = abstract["batch_stats"]
    tree = {"ema_params": abstract["params"], "ema_batch_stats": moving(stats), "batch_stats": fixed(stats)}
    tree = {name: part for name, part in tree.items() if part}
    loaded = load(directory, step, tree, partial=True)
    stats = {**loaded.get("ema_batch_stats", {}), **loaded.get("batch_stats", {})}
    return {"params": loaded["ema_params"], "batch_stats": stats}


def _check_all_named(path: epath.Path, params: Tree) -> None:
    there, named = (
        {jax.tree_util.keystr(name) for name, _ in jax.tree.leaves_with_path(tree)}
        for tree in (ocp.metadata(path).metadata["ema_params"], params)
    )
    if more := sorted(there - named):
        raise CheckpointError(
            f"the checkpoint of step {path.name} holds {len(more)} parameters that this config's networks do not have, "
            f"such as {more[0]}: it is of another config"
        )


def versions() -> dict[str, str]:
    """Of the libraries that a checkpoint depends on."""
    libraries = {"jax": jax, "flax": flax, "optax": optax, "orbax": orbax.checkpoint, "numpy": np}
    return {name: library.__version__ for name, library in libraries.items()}


def check_writable(directory: epath.Path) -> None:
    """OSError, at once, where no file can be made: orbax takes minutes to say so."""
    trial = directory / f".writable_{process_index()}"
    trial.write_bytes(b"x" * 4096)
    trial.unlink()


def _open(directory: epath.Path) -> ocp.training.Checkpointer:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_writable(directory)
        return ocp.training.Checkpointer(
            directory.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.PreserveAll(),  # we remove, see _finish
            cleanup_tmp_directories=True,
        )
    except OSError as error:
        raise CheckpointError(
            f"cannot keep checkpoints in {directory} ({brief(error)}): choose another --workdir"
        ) from error


def _folders(directory: epath.Path) -> list[tuple[int, epath.Path]]:
    """(step, folder), ascending, whole or not."""
    if not directory.exists():
        return []
    return sorted((int(path.name), path) for path in directory.iterdir() if path.name.isdigit())


def _set_aside(path: epath.Path) -> epath.Path:
    """Renames a folder so that nothing takes it for a checkpoint; returns its new path."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    return path.rename(aside)


def _remove(path: epath.Path) -> None:
    """Renames first: half a checkpoint must not look like one."""
    path.rename(path.with_name(f"{path.name}.removed")).rmtree()


def _whole(directory: str | epath.PathLike, step: int | None) -> epath.Path:
    """The folder of a checkpoint; step None: the latest."""
    found = steps(directory)
    if not found:
        raise CheckpointError(f"no checkpoint in {directory} yet")
    if step is not None and step not in found:
        raise CheckpointError(f"no checkpoint of step {step} in {directory}: found {found}")
    return epath.Path(directory).absolute() / str(found[-1] if step is None else step)
