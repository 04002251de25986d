"""A run that comes back on fewer devices, or another mesh, goes on with the same batches and numbers."""

import jax
import pytest

from tests import small_job
from tests.steady import BATCH, STEADY, STEPS, assert_close


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder of the job run by one process on 8 devices without a break."""
    workdir = tmp_path_factory.mktemp("alone")
    assert small_job.run(workdir, STEADY).kind == "finished"
    return workdir


def test_from_8_devices_to_4_to_2_to_1(alone, tmp_path):
    for devices, steps in ((8, 3), (4, 5), (2, 8), (1, STEPS)):
        said = []
        changes = STEADY | {"mesh.data": devices, "train.images": BATCH * steps}
        assert small_job.run(tmp_path, changes, say=said.append).step == steps
        assert any(f"devices: {devices} x" in text for text in said)
    assert_close(tmp_path, alone)


def test_cut_arrays_come_back_on_another_mesh(alone, tmp_path):
    cut = STEADY | {"mesh.smallest": 1024, "mesh.data": 2, "mesh.fsdp": 4, "train.images": 4 * BATCH}
    small_job.run(tmp_path, cut)
    leaves = jax.tree.leaves(small_job.job(tmp_path, cut).shardings.params)
    assert any(not place.is_fully_replicated for place in leaves)
    small_job.run(tmp_path, STEADY | {"mesh.data": 4})
    assert_close(tmp_path, alone)
