"""The mesh: sizes, folding, and what is said of those that make no mesh."""

import jax
import pytest
from jax.sharding import AxisType

from soda_jax.parallel.mesh import Plan, check_batch, make_mesh, plan_mesh


@pytest.mark.parametrize(
    ("asked", "present", "plan"),
    [
        ((-1, 1), 8, Plan(data=8, fsdp=1)),
        ((-1, 4), 8, Plan(data=2, fsdp=4)),
        ((4, 1), 8, Plan(data=4, fsdp=1)),
        ((16, 1), 1, Plan(data=1, fsdp=1, folded=16)),
        ((16, 2), 8, Plan(data=4, fsdp=2, folded=4)),
        ((4, 8), 4, Plan(data=1, fsdp=4, folded=8)),
        ((16, 1), 6, Plan(data=4, fsdp=1, folded=4)),
        ((-1, 4), 2, Plan(data=1, fsdp=2, folded=2)),
        ((2, -1), 8, Plan(data=2, fsdp=4)),
        ((1, -1), 8, Plan(data=1, fsdp=8)),
        ((16, -1), 8, Plan(data=8, fsdp=1, folded=2)),
    ],
)
def test_a_plan_fits_the_devices_and_keeps_the_product(asked, present, plan):
    assert plan_mesh(*asked, present, fold=True) == plan
    assert plan.devices <= present
    if -1 not in asked:
        assert plan.devices * plan.folded == asked[0] * asked[1]


def test_without_folding_too_many_devices_are_refused():
    with pytest.raises(ValueError, match=r"mesh.data=16 .* 16 devices, 8 are present: .* mesh.fold=True"):
        plan_mesh(16, 1, 8, fold=False)


@pytest.mark.parametrize(
    ("data", "fsdp", "words"),
    [
        (0, 1, "mesh.data must be -1"),
        (-2, 1, "found -2"),
        (1, 0, "mesh.fsdp must be"),
        (1, -2, "mesh.fsdp must be -1"),
        (-1, -1, "both -1"),
        (-1, 3, "mesh.fsdp=3 does not divide the 8"),
        (3, -1, "mesh.data=3 does not divide the 8"),
    ],
)
def test_sizes_that_make_no_mesh_are_named(data, fsdp, words):
    with pytest.raises(ValueError, match=words):
        plan_mesh(data, fsdp, 8, fold=True)


def test_the_mesh_has_automatic_axes_and_the_first_devices():
    mesh = make_mesh(2, 2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert list(mesh.devices.flat) == jax.devices()[:4]
    assert make_mesh().devices.size == jax.device_count()


def test_a_batch_that_cannot_be_cut_evenly_is_refused_with_one_that_can():
    check_batch(48, 3, 8)
    with pytest.raises(ValueError, match=r"train.batch=50 must be a multiple of 24 .* take 48"):
        check_batch(50, 3, 8)
    with pytest.raises(ValueError, match=r"take 8,"):
        check_batch(2, 1, 8)
    with pytest.raises(ValueError, match=r"train.accumulation must be 1 or more"):
        check_batch(8, 0, 1)
