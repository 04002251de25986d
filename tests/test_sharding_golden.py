"""How the largest config lies on 1, 8 and 256 devices: a change of it is on purpose."""

import functools
import os
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from experiments import build, methods
from experiments.configs import soda_imagenet
from experiments.job import initialiser
from soda_jax.parallel.mesh import AXES, plan_mesh
from soda_jax.training import tables

GOLDEN = Path(__file__).parent / "golden"
RENEW = (
    "If that is on purpose: UPDATE_GOLDEN=1 python -m pytest tests/test_sharding_golden.py; read the diff."
)
MESHES = [(1, 1, 1), (8, 1, 8), (1, 8, 8), (256, 1, 256), (64, 4, 256), (1, 256, 256)]  # data, fsdp, devices


@functools.cache
def state():
    """Config and state of soda_imagenet, in shapes."""
    config = soda_imagenet.get_config("64")
    spec = build.batch_spec(config)
    return config, jax.eval_shape(initialiser(config, methods.method(config, spec), spec))


@pytest.mark.parametrize(("data", "fsdp", "devices"), MESHES)
def test_the_table_is_that_of_the_golden_text(data, fsdp, devices):
    config, abstract = state()
    plan = plan_mesh(-1, fsdp, devices, fold=False)
    assert (plan.data, plan.fsdp) == (data, fsdp)
    mesh = AbstractMesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)  # of devices that are not here
    shardings = build.shardings(config, abstract, mesh)
    whole, local = tables.state_bytes(abstract, shardings)
    size = f"state: {tables.size_text(whole)}, {tables.size_text(local)} a device\n\n"
    text = size + tables.sharding_table(abstract, shardings, build.rules(config)) + "\n"
    golden = GOLDEN / f"sharding_soda_imagenet_64_data{data}_fsdp{fsdp}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), RENEW
