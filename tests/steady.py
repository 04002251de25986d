"""A small job whose numbers hardly depend on the order of sums, for comparing devices and processes."""

from pathlib import Path

import jax
import numpy as np

from soda_jax.training import checkpoints
from tests import launched, small_job

# Large enough, and slow enough, that BatchNorm and Adam do not blow up what rounding makes of another order of sums.
BATCH, STEPS, SAVE = 16, 10, 4
STEADY = {
    "mesh.data": -1,
    "train.batch": BATCH,
    "train.images": BATCH * STEPS,
    "train.log_every_images": BATCH,
    "checkpoint.every_images": BATCH * SAVE,
    "data.image_size": 16,
    "data.source_size": 16,
    "model.encoder_width": 4,
    "model.residual_gain": 0.25,
    "optimizer.learning_rate": 3e-4,
}


def command(workdir: Path, **changes) -> list[str]:
    """The job, for the launcher."""
    return launched.training(
        workdir, *(f"--config.{key}={value}" for key, value in (STEADY | changes).items())
    )


def final_state(workdir: Path):
    """The state at the end, on this process's devices."""
    return checkpoints.load(workdir / "checkpoints", STEPS, small_job.job(workdir, STEADY).abstract)


def assert_close(workdir: Path, other: Path):
    """Losses and the whole state, to 1e-5."""
    mine, others = (small_job.records(folder) for folder in (workdir, other))
    np.testing.assert_allclose([r["loss"] for r in mine], [r["loss"] for r in others], rtol=1e-5)
    a, b = (jax.tree.leaves_with_path(final_state(folder)) for folder in (workdir, other))
    assert len(a) == len(b) > 300
    for (path, x), (_, y) in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=str(path))
