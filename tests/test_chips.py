"""The table of accelerators."""

import pytest

from soda_jax.training.chips import CHIPS, GIB, chip_named, chip_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v2", "v2"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA L4", "l4"),
    ],
)
def test_a_device_is_found_by_what_jax_calls_it(kind, name):
    assert chip_of(kind).name == name


def test_an_unknown_device_is_none_and_not_the_one_that_sounds_alike():
    assert chip_of("NVIDIA L40S") is None and chip_of("cpu") is None


def test_the_figures_of_v5e_are_those_that_its_maker_publishes():
    chip = chip_named("v5e")
    assert (chip.peak("bfloat16"), chip.memory, chip.bandwidth) == (197e12, 16 * GIB, 819e9)
    assert (chip.link, chip.between) == (
        400e9 / 2,
        25e9 / 8,
    )  # published: 400 GB/s both ways, 6.4 Tbit/s by 256 chips


def test_names_are_unique_and_figures_plausible():
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
    for chip in CHIPS:
        assert chip.float32 <= chip.bfloat16 and 50 < chip.bfloat16 / chip.bandwidth < 700, chip.name
        assert chip.link is None or chip.link < chip.bandwidth


def test_a_name_that_is_none_is_answered_with_those_there_are():
    assert chip_named("V5E").name == "v5e"
    with pytest.raises(ValueError, match=r"no chip is called 'v9': take one of v2, .* v5e, .* h100"):
        chip_named("v9")
