"""MODEL_CARD.md: what it says of a network, of its probe, and of who can read it."""

import pytest

from soda_jax.export.model_card import model_card
from tests import made_up_run

COMMAND = "python -m experiments.probe --workdir=DIR"
CONFIG = {
    "method": "soda",
    "step": 1200,
    "images": 76800,
    "family": "resnet",
    "fields": {"depth": 18, "width": 64},
    "features": {"z": 832, "pooled": 512},
    "image_shape": [64, 64, 3],
    "dtype": "float32",
    "compute": "bfloat16",
    "data": {"name": "views3d", "sizes": {"train": 4096, "test": 512}, "manifest": "1a2b"},
    "versions": {"jax": "0.10.2"},
}


def card(changes=None, probe=None, licence=""):
    return model_card({**CONFIG, **(changes or {})}, probe, COMMAND, licence)


@pytest.mark.parametrize(
    "words",
    [
        "# soda encoder, step 1,200",
        "| network | resnet (depth 18, width 64) |",
        "| features | z (832), pooled (512) |",
        "| images | 64 x 64 x 3, uint8 (preprocessing.json) |",
        "| data | views3d: 4,096 train, 512 test examples (manifest 1a2b) |",
        "76,800 images in 1,200 steps; averaged weights (EMA), in float32",
        "training computed in bfloat16",
        "not stated (ask whoever trained it)",
    ],
)
def test_it_says_what_the_encoder_is(words):
    assert words in card()


def test_a_licence_is_quoted():
    assert "**Licence of the weights:** CC0" in card(licence="CC0")


def test_without_a_probe_it_names_the_command():
    assert f"No result is with this bundle: `{COMMAND}` makes one." in card()


def test_the_table_of_a_probe_is_in_percent_with_intervals():
    scores = {name: made_up_run.scores(0.25) for name in ("z", "pooled", "untrained", "pixels")}
    probe = {"labels": {"hue": scores}, "chance": {"hue": 0.125}, "sizes": {"train": 96, "test": 4000}}
    text = card(probe=probe)
    low, high = (100 * end for end in scores["z"]["linear_ci95"])
    assert f"| hue | 12.5% | 25.0 [{low:.1f}, {high:.1f}] |" in text and "4,000 images" in text
    assert "No result" not in text


def test_it_names_the_readers_that_read_this_network():
    everywhere = "`torch_encoder.py`, `onnx_encoder.py`, `numpy_encoder.py` beside this file"
    assert everywhere in card()
    tap = card({"family": "diffusion_tap", "fields": {"tap": "out_2", "told": 0.02}})
    assert "`onnx_encoder.py` beside this file" in tap and "torch_encoder.py" not in tap
    assert "diffusion_tap (tap out_2, told 0.02)" in tap
