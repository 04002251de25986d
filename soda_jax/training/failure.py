"""What is kept of a training that broke: the batch, and the state that it met."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from soda_jax.parallel.processes import process_index
from soda_jax.training.single_state import save_once
from soda_jax.types import Batch, Tree


def save_failure(workdir: Path, step: int, state: Tree, batch: Batch, metadata: Mapping[str, Any]) -> Path:
    """workdir/failure/step_N/: `batch_P.npz` (the rows of process P) and `state`, an orbax checkpoint."""
    folder = (workdir / "failure" / f"step_{step:08d}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: local_rows(array) for name, array in batch.items()}
    np.savez(folder / f"batch_{process_index()}.npz", **rows)
    save_once(folder / "state", state, dict(metadata))
    return folder


def local_rows(array: jax.Array) -> np.ndarray:
    """The rows of an array that this process holds, each once, in order."""
    shards = {shard.index[0].start or 0: np.asarray(shard.data) for shard in array.addressable_shards}
    return np.concatenate([shards[start] for start in sorted(shards)])
