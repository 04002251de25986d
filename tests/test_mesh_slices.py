"""Several slices: `data` over them, `fsdp` inside one; on devices described by hand and by the TPU compiler."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from soda_jax.parallel.mesh import layout

REAL = """
import json, sys
from jax.experimental import topologies
from soda_jax.parallel.mesh import make_mesh

def asked(topology, slices, *axes):
    devices = topologies.get_topology_desc(topology, "tpu", num_slices=slices).devices
    try:
        mesh = make_mesh(*axes, devices)
    except ValueError as error:
        return str(error)
    return [[[getattr(device, "slice_index", 0), *device.coords] for device in row] for row in mesh.devices]

json.dump([asked(*request) for request in json.loads(sys.argv[1])], sys.stdout)
"""


@dataclass(frozen=True)
class Device:
    """What the layout looks at."""

    id: int
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "another"
    coords: tuple[int, ...] = ()
    core_on_chip: int = 0
    process_index: int = 0


def devices(slices=2, inside=4, **fields):
    """`inside` chips, in a row, of each slice; numbered from slice to slice."""
    return [
        Device(id=i, slice_index=i // inside, coords=(i % inside, 0, 0), **fields)
        for i in range(slices * inside)
    ]


def slice_numbers(table):
    return np.vectorize(lambda device: device.slice_index)(table)


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (4, 2), (2, 4)])
def test_rows_stay_in_a_slice_and_data_runs_over_slices(data, fsdp):
    table = layout(data, fsdp, devices())
    slices = slice_numbers(table)
    assert table.shape == (data, fsdp) and len(set(table.ravel())) == 8
    assert (slices == slices[:, :1]).all()
    np.testing.assert_array_equal(slices[:, 0], np.repeat([0, 1], data // 2))


def test_the_order_in_which_the_devices_come_does_not_matter():
    mixed = sorted(devices(), key=lambda device: device.id % 4)
    np.testing.assert_array_equal(slice_numbers(layout(2, 4, mixed)), [[0] * 4, [1] * 4])


@pytest.mark.parametrize(
    ("data", "fsdp", "there", "words"),
    [
        (1, 8, devices(), r"mesh.fsdp=8 .* slow network .*\(4 \+ 4 devices\): .* multiple of 2"),
        (3, 2, devices()[:6], r"mesh.fsdp=2 .*\(4 \+ 2 devices\)"),
        (3, 4, devices(slices=4, inside=3), r"mesh.data=3 .* multiple of 4"),
    ],
)
def test_an_array_is_never_cut_over_slices(data, fsdp, there, words):
    with pytest.raises(ValueError, match=words):
        layout(data, fsdp, there)


def test_among_machines_of_gpus_it_is_a_choice():
    """There a slice is a machine: rows stay in one where they can, and may span two."""
    gpus = devices(platform="gpu")
    np.testing.assert_array_equal(slice_numbers(layout(2, 4, gpus)), [[0] * 4, [1] * 4])
    assert [device.id for device in layout(1, 8, gpus[::-1]).ravel()] == list(range(8))


def test_devices_without_slices_lie_in_their_order():
    assert [device.id for device in layout(2, 2, devices(slices=1)).ravel()] == [0, 1, 2, 3]


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed (extra tpu-aot)")
def test_slices_as_the_tpu_compiler_describes_them():
    requests = [("v5e:2x2", 2, 2, 4), ("v5e:2x2", 2, -1, 2), ("v5e:2x2", 2, 1, -1), ("v5e:2x4", 1, 2, 4)]
    environment = {**os.environ, "TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", REAL, json.dumps(requests)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    whole, half, crossing, single = json.loads(done.stdout)
    for table, shape in ((whole, (2, 4)), (half, (4, 2))):
        slices = np.array(table)[..., 0]
        assert (
            slices.shape == shape
            and (slices == slices[:, :1]).all()
            and slices[:, 0].tolist() == sorted(slices[:, 0])
        )
    assert "mesh.data must be a multiple of 2" in crossing
    assert len({tuple(chip) for row in single for chip in row}) == 8
