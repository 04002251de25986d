"""Every mode of editing on a small run; one by one they take seconds, together they are for `-m slow`."""

import numpy as np
import pytest

from experiments import edit
from soda_jax.report import exhibit
from soda_jax.report.page import png_size
from tests import small_edits, small_run

MODES = ("mix", "interpolate", "directions", "attribute", "manipulate", "explorer")
SECTIONS = 3  # of the small run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_edits.write(tmp_path_factory.mktemp("edit") / "run")


@pytest.fixture(scope="module")
def edited(workdir):
    """mode -> results, made when first asked for."""
    found = {}

    def results(mode):
        if mode not in found:
            more = ["--label=hue"] if mode in ("attribute", "manipulate") else []
            assert edit.main(small_edits.arguments(workdir, mode, *more)) == 0
            found[mode] = small_edits.results(workdir, mode)
        return found[mode]

    return results


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_leaves_pictures_measures_and_an_exhibit(workdir, edited, mode):
    edited(mode)
    small_edits.check(workdir, mode)


def test_the_page_of_the_run_shows_all_modes(workdir, edited):
    list(map(edited, MODES))
    titles = [found.exhibit.title.removeprefix("Editing: ") for found in exhibit.find(workdir)]
    assert titles[:3] == ["interpolation", "directions found without labels", "attributes"]
    assert titles[3:] == ["sections mixed", "real images, their own noise kept", "explorer"]


def test_directions_are_of_z_and_of_each_section(edited):
    measures = edited("directions")["measures"]
    names = measures["directions"]
    assert names[-SECTIONS:] == ["section 0", "section 1", "section 2"] and len(names) == 6 + SECTIONS
    assert sum(measures["shares"][:6]) == pytest.approx(1, abs=1e-4)  # z has 6 numbers here
    assert sum(measures["section_variances"]) == pytest.approx(1, abs=1e-4)
    assert np.shape(list(measures["eta_squared"].values())) == (2, len(names))


def test_an_attribute_is_measured_for_every_way_to_it(workdir, edited):
    measures = edited("attribute")["measures"]["labels"]["hue"]
    ways = [f"{way} x {strength}" for way in ("normal", "data") for strength in ("1", "2", "4")]
    assert set(measures) == {*ways, "A - B + C", "means A - B + C", "redrawn", "other noise"}
    assert all(measures[way]["accuracy"]["count"] == 5 for way in ways)
    width = png_size((workdir / "edit" / "attribute" / "attribute_hue.png").read_bytes())[0]
    assert width == (2 + small_run.HUES) * (96 + 6)


def test_real_images_are_measured_from_their_own_noise_and_from_fresh_noise(edited):
    measures = edited("manipulate")["measures"]
    assert set(measures["labels"]["hue"]) == {"own", "fresh"}
    assert measures["labels"]["hue"]["own"]["accuracy"]["count"] == 5
    assert measures["unedited_distance"]["own"] < measures["unedited_distance"]["fresh"]
