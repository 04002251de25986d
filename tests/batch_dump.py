"""One of several processes: joins, puts the first batches on the devices, writes down the rows that it holds.

`python -m tests.batch_dump DATA_DIR OUT`
"""

import sys
from pathlib import Path

import jax
import numpy as np

from experiments.job import batches, prepare
from soda_jax.parallel import processes
from soda_jax.parallel.joining import Place, join
from soda_jax.parallel.sharding import put_batch
from soda_jax.training.failure import local_rows
from tests.small_config import get_config

BATCHES = 5  # more than an epoch


def job_of(data_dir: str, workdir: Path):
    """The small job on all devices."""
    config = get_config()
    config.data.dir, config.mesh.data = data_dir, -1
    return prepare(config, workdir)


def dump(job) -> dict[str, np.ndarray]:
    """name -> [batches, rows of this process, ...]."""
    with batches(job, 0) as stream:
        put = [put_batch(next(stream), job.spec, job.mesh) for _ in range(BATCHES)]
    return {name: np.stack([local_rows(batch[name]) for batch in put]) for name in put[0]}


if __name__ == "__main__":
    join("auto", Place())
    out = Path(sys.argv[2])
    np.savez(out / f"rows_{processes.process_index()}.npz", **dump(job_of(sys.argv[1], out)))
    print("devices", jax.device_count(), flush=True)
