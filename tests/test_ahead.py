"""Compiling for devices that are not there: on simulated ones, of which all can be checked."""

import dataclasses

import jax
import pytest

from experiments import ahead
from experiments.advice import advice, better_mesh, fewest_parts
from experiments.compile import text
from experiments.job import design
from soda_jax.parallel.collectives import Collective
from soda_jax.training.chips import GIB
from soda_jax.training.tables import state_bytes
from tests import pod_config

REFUSAL = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 21.50G of 15.75G hbm. Exceeded hbm capacity by 5.75G."
)


def config(**changes):
    c = pod_config.get_config()
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def tried():
    """The tiny config compiled for two simulated GPUs: the program, its topology, the attempt."""
    place = ahead.topology("h100:2")
    program = design(config(), place.devices)
    return program, place, ahead.attempt(program)


@pytest.fixture(scope="module")
def measured(tried):
    """Its figures, its topology."""
    return ahead.figures(*tried), tried[1]


def test_the_figures_are_those_of_the_program(measured):
    found, _ = measured
    assert (found["topology"], found["chip"], found["devices"]) == ("h100:2", "h100", 2)
    assert (found["mesh"], found["images_per_device"], found["estimate"]) == ({"data": 2, "fsdp": 1}, 4, True)
    assert found["fits"] and found["advice"] == [] and found["hbm_bytes"] == 80 * 10**9
    state = found["state_bytes"]
    assert state <= found["arguments_bytes"] < 1.1 * state + 4 * 200 and found["hbm_peak_bytes"] > state
    assert found["hlo_flops"] > found["model_flops"] > 0
    assert found["compile_seconds"] > 0 and found["bytes_accessed"] > 2 * state


def test_gradients_are_summed_and_little_else_is_sent(measured):
    found, _ = measured
    (entry,) = found["collectives"]
    assert (entry["kind"], entry["devices"]) == ("all-reduce", 2)
    assert (
        entry["sent_bytes"] == found["collective_bytes"] == entry["bytes"]
    )  # 2 B (g - 1) / g of two devices
    params = design(config(), ahead.topology("h100:2").devices).abstract.params
    floats = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    assert 0.5 * floats <= found["collective_bytes"] < 1.3 * floats
    assert found["collective_bytes_between_slices"] == 0


def test_the_bound_follows_from_the_figures_and_the_chip(measured):
    found, place = measured
    bound, chip = found["roofline"], place.chip
    assert bound["compute"] == found["hlo_flops"] / chip.bfloat16
    assert bound["memory"] == found["bytes_accessed"] / chip.bandwidth
    assert bound["network"] == pytest.approx(found["collective_bytes"] / chip.link)
    assert bound["seconds"] == max(bound["compute"], bound["memory"], bound["network"])
    assert found["images_per_second"] == 8 / bound["seconds"]
    assert bound["mfu"] == pytest.approx(found["model_flops"] / (chip.bfloat16 * bound["seconds"]))


def test_the_text_says_what_is_a_bound_and_what_an_estimate(measured):
    said = text(measured[0])
    for words in ("h100:2: 2 devices, mesh: data 2, fsdp 1", "an ESTIMATE", "fits", "by the networks' count"):
        assert words in said, words
    assert "a bound: real steps take longer" in said and "all-reduce" in said and "MFU at most" in said
    assert "ESTIMATE" not in text({**measured[0], "estimate": False})


def test_what_does_not_fit_comes_with_advice(tried, measured):
    program, place, attempt = tried
    small = dataclasses.replace(place.chip, memory=measured[0]["hbm_peak_bytes"] - 1)
    again = ahead.figures(program, dataclasses.replace(place, chip=small), attempt)
    assert not again["fits"] and again["hlo_flops"] == measured[0]["hlo_flops"]
    said = text(again)
    assert "DOES NOT FIT" in said and "it does not fit. To try next:" in said
    assert "--config.model.remat=blocks" in said


def test_what_the_compiler_refused_has_its_memory_and_no_more(tried):
    program, place, _ = tried
    refused = dataclasses.replace(tried[2], compiled=None, needed=100 * GIB)
    found = ahead.figures(program, place, refused)
    assert (found["fits"], found["hbm_peak_bytes"]) == (False, 100 * GIB)
    assert found["hlo_flops"] is found["roofline"] is found["collective_bytes"] is None
    said = text(found)
    assert "DOES NOT FIT" in said and "--config.train.accumulation=" in said and "MFU" not in said


def test_microbatches_are_counted_as_often_as_they_run(measured):
    """The compiler's own count has each loop once, and would say that half of the work is gone."""
    again = ahead.measure(config(**{"train.accumulation": 2}), measured[1])
    assert again["accumulation"] == 2 and again["images_per_device"] == 4
    assert again["hlo_flops"] == pytest.approx(measured[0]["hlo_flops"], rel=0.1)
    assert again["model_flops"] == measured[0]["model_flops"]


def test_the_refusal_of_the_tpu_compiler_is_read():
    assert ahead.too_large(REFUSAL) == int(21.5 * GIB)
    assert ahead.too_large("INTERNAL: Used 21.50G of 15.75G hbm") is None
    assert ahead.too_large("RESOURCE_EXHAUSTED: too many requests") is None


@pytest.mark.parametrize(
    ("name", "slices", "words"),
    [
        ("v9:2x2", 1, r"no chip is called 'v9'"),
        ("v5e", 1, r"--topology=v5e: expected the sides of a slice behind the colon \(v5e:4x4"),
        ("v5e:16", 1, r"--topology=v5e:16: expected the sides"),
        ("h100:2x2", 1, r"--topology=h100:2x2: expected a number of GPUs"),
        ("h100:0", 1, r"expected a number of GPUs"),
        ("h100:2", 2, r"--slices=2 is for TPUs"),
        ("v5e:2x2", 0, r"--slices must be 1 or more, found 0"),
        ("h100:64", 1, r"64 devices were asked for, and JAX had made 8"),
    ],
)
def test_what_is_no_topology_is_said(name, slices, words):
    with pytest.raises(ValueError, match=words):
        ahead.topology(name, slices)


def test_a_wrong_key_is_named_before_anything_is_compiled():
    with pytest.raises(ValueError, match=r"train.batch=9 must be a multiple of 2"):
        ahead.measure(config(**{"train.batch": 9}), ahead.topology("h100:2"))


def collective(kind, members, shapes):
    return Collective(kind=kind, shapes=shapes, members=members, in_loop=False, runs=1, name="")


def test_collectives_are_summed_by_kind_and_size():
    ten = (("f32", (10,)),)
    found = [collective("all-reduce", (0, 1), ten), collective("all-reduce", (2, 3), ten)]
    found.append(collective("all-gather", (0, 1, 2, 3), ten))
    assert ahead.summary(found) == [
        {"kind": "all-gather", "devices": 4, "count": 1, "bytes": 40, "sent_bytes": 30},
        {"kind": "all-reduce", "devices": 2, "count": 2, "bytes": 80, "sent_bytes": 80},
    ]


def test_the_fewest_microbatches_that_fit():
    assert fewest_parts(rows=12, work=10.0, room=2.1) == 6  # 5 would fit, and leave two rows over
    assert fewest_parts(rows=12, work=10.0, room=0.5) is None
    assert fewest_parts(rows=1, work=10.0, room=3.0) is None


def test_advice_names_accumulation_batch_remat_and_mesh():
    program = design(config(**{"train.batch": 32}), jax.devices()[:4])
    _, state = state_bytes(program.abstract, program.shardings)
    chip = dataclasses.replace(ahead.chip_named("v5e"), memory=int(1.5 * state))
    lines = "\n".join(advice(program, 2 * state, chip))
    assert "--config.train.accumulation=4: 2 instead of 8 images at a time" in lines
    assert "--config.train.batch=8" in lines and "--config.model.remat=blocks" in lines
    assert "--config.mesh.fsdp=2" in lines
    assert better_mesh(program, state, state, room=4.0 * state) is None


def test_without_anything_to_change_more_devices_are_the_advice():
    program = design(config(**{"train.batch": 4, "model.remat": "blocks", "mesh.fsdp": 4}), jax.devices()[:4])
    chip = dataclasses.replace(ahead.chip_named("v5e"), memory=1000)
    assert advice(program, 10**9, chip) == [
        "more devices, devices with more memory, or a smaller network (model.channels, model.dit_size)"
    ]
