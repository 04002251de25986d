"""One state on disk, by orbax: what each checkpoint is made of, and what a run that diverged leaves."""

from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from soda_jax.types import Tree

# Bytes: below that an array is written by one device whole. Else orbax cuts each into as many pieces as devices hold
# it, which for the hundreds of small arrays of a network takes longer than to write them.
SMALLEST_PIECE = 2**20


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, found or read; says where, and what to do."""


def save_once(path: str | epath.PathLike, state: Tree, metadata: dict[str, Any]) -> None:
    """One state on its own, outside the sequence of checkpoints; replaces what was there."""
    with saving():
        ocp.save(path, state, overwrite=True, custom_metadata=metadata)


def load_once(path: str | epath.PathLike, abstract: Tree, *, partial: bool = False) -> Tree:
    """What `save_once` wrote, or one whole checkpoint, as of `load`."""
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    try:
        with context:
            return ocp.load(path, abstract)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {path} does not hold what the config describes ({brief(error)}): "
            "take the config it was made with, or another workdir"
        ) from error


def saving() -> ocp.Context:
    """How arrays are written: a context manager."""
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = SMALLEST_PIECE
    return context


def brief(error: Exception) -> str:
    """Its kind and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
