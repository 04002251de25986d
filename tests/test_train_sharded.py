"""A whole training job with its arrays cut over 2 x 4 devices: it trains as on one device."""

import jax
import numpy as np
import pytest

from experiments import runs
from tests import small_job
from tests.small_config import BATCH

SETTINGS = {
    "optimizer.learning_rate": 1e-4,  # higher ones make more of what rounding differs by
    "train.images": 4 * BATCH,
    "train.log_every_images": BATCH,
    "checkpoint.every_images": 2 * BATCH,
    "monitor.every_images": 0,  # the monitor has a test of its own
    "mesh.smallest": 100,
    "mesh.rules": ((r"head/kernel$", "output"),),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdirs of the job on one device and on eight."""
    one, many = (tmp_path_factory.mktemp(name) for name in ("one", "many"))
    small_job.run(one, SETTINGS | {"mesh.data": 1})
    small_job.run(many, SETTINGS | {"mesh.data": 2, "mesh.fsdp": 4})
    return one, many


def test_the_state_is_cut(tmp_path):
    job = small_job.job(tmp_path, SETTINGS | {"mesh.data": 2, "mesh.fsdp": 4})
    cut = [place for place in jax.tree.leaves(job.shardings) if "fsdp" in place.spec]
    assert len(cut) > 100
    assert job.shardings.params["encoder"]["head"]["kernel"].spec == jax.P()  # its 6 columns do not divide


def test_losses_and_weights_are_those_of_one_device(finished):
    one, many = (small_job.records(workdir) for workdir in finished)
    assert [row["step"] for row in one] == [row["step"] for row in many] == [1, 2, 3, 4]
    np.testing.assert_allclose([row["loss"] for row in many], [row["loss"] for row in one], rtol=1e-5)
    np.testing.assert_allclose(
        [row["grad_norm"] for row in many], [row["grad_norm"] for row in one], rtol=1e-4
    )
    weights = [runs.open_run(workdir).ema_variables() for workdir in finished]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *weights[::-1])
