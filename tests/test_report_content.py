"""The page of a run: what was measured is on it in the right place, what is missing is said in words."""

import dataclasses
import re

import pytest

from experiments.report import read
from soda_jax.report import content, summary
from soda_jax.report.record import Picture
from tests.made_up_run import LABELS, SECTIONS, monitor_reading, scores, write_run
from tests.test_page import Reader


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A whole run."""
    return read(write_run(tmp_path_factory.mktemp("run") / "full"))


def changed(record, **fields):
    return dataclasses.replace(record, **fields)


def text(markup):
    return Reader(markup.removeprefix("<!doctype html>")).text


def one_probe(**labels):
    return {7: {"step": 7, "labels": labels}}


def label(z, untrained, pixels=0.3):
    return {"z": scores(z), "pooled": scores(z), "untrained": scores(untrained), "pixels": scores(pixels)}


def test_the_whole_page_is_well_formed_and_has_every_section(record):
    page = Reader(content.render(record).removeprefix("<!doctype html>"))
    for heading in (
        "What the latent draws",
        "What the features know",
        "The latent",
        "Training",
        "Configuration",
    ):
        assert heading in page.text
    assert page.tags.count("img") == 5 and page.tags.count("svg") == 1 + len(LABELS) + 4 + 2


def test_a_newborn_run_says_what_is_missing_and_how_to_get_it(tmp_path):
    young = read(write_run(tmp_path / "young", steps=0, probes=(), pictures=False))
    words = text(content.render(young))
    for main in ("sample", "probe"):
        assert f"run python -m experiments.{main} --workdir={tmp_path}/young" in words
    for sentence in ("No training metrics yet", "monitor has not run yet", "Nothing has been measured yet"):
        assert sentence in words


def test_the_verdict_counts_labels_that_z_wins_beyond_the_intervals(record):
    probes = one_probe(shape=label(0.9, 0.5), size=label(0.51, 0.5), yaw=label(0.2, 0.6))
    words = summary.probe_verdict(changed(record, probes=probes))
    assert words.startswith("On 1 of 3 labels") and "On yaw it stays below." in words
    assert "shape, 90.0% (untrained encoder 50.0%; raw pixels 30.0%)" in words


def test_the_verdict_on_a_single_label_names_the_baselines(record):
    words = summary.probe_verdict(changed(record, probes=one_probe(label=label(0.841, 0.787, 0.8))))
    assert "tells the class right on 84.1% of the test split (95% interval 82.6 to 85.6;" in words
    assert words.endswith("untrained encoder 78.7%; raw pixels 80.0%).")


def test_the_newest_probe_counts(record):
    assert record.probes.keys() == {250, 500, 750}
    assert "Step 750" in content.probes(record)


def test_figures_are_those_of_the_run(record):
    figures = summary.figures(record)
    assert figures["images trained on"] == "24,000" and figures["training examples"] == "4,096"
    assert 100 <= float(figures["images per second"]) <= 108
    assert figures["training time"] == "3.8 min"


def test_the_headline_says_of_what_pixels(record):
    """Runs of before `data.zoom` looked at whole images."""
    old = {name: value for name, value in record.config["data"].items() if name != "zoom"}
    for data in (old, old | {"zoom": 1.0}):
        page = summary.headline(changed(record, config=record.config | {"data": data}))
        assert "64 x 64 pixels, seed 3" in page
    page = summary.headline(changed(record, config=record.config | {"data": old | {"zoom": 4 / 3}}))
    assert "64 x 64 pixels of the middle of each image (1.33 times as near), seed 3" in page


def test_a_run_that_was_stopped_between_two_records_counts_what_its_checkpoint_has(record):
    stopped = summary.figures(changed(record, saved={"images": 24_928, "seconds": 3_000.0}))
    assert stopped["images trained on"] == "24,928" and stopped["training time"] == "50 min"
    older = changed(record, saved={"images": 16_000, "seconds": 1.0})  # of a run that goes on meanwhile
    assert summary.figures(older) == summary.figures(record)


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.3, "12 s"), (60.0, "1 min"), (6000.0, "1.67 h"), (None, "")]
)
def test_training_time_is_told_in_a_fitting_unit(seconds, words):
    assert summary.duration(seconds) == words


def test_the_best_of_each_row_is_marked_once_for_each_kind(record):
    table = content.probe_table(record, one_probe(shape=label(0.9, 0.5), yaw=label(0.2, 0.6))[7])
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[2:]
    marked = [re.findall(r'<td class="best">([\d.]+%)', row) for row in rows]
    assert marked == [["90.0%", "85.0%"] * 2, ["60.0%", "55.0%"]]  # z and pooled tie in the first


def test_chance_is_what_the_probe_found(record):
    probe = record.probes[750]
    assert "17.9%" in content.probe_table(record, probe | {"chance": {"shape": 0.179}})
    assert "<td>?" in content.probe_table(record, probe)


def test_one_probe_has_no_history_and_several_have_a_curve_a_label(record):
    assert content.probe_history(changed(record, probes={750: record.probes[750]})) == ""
    assert content.probe_history(record).count("<svg") == len(LABELS)


def test_a_label_that_earlier_probes_lack_is_drawn_from_those_that_have_it(record):
    early = {3: {"step": 3, "labels": {}}, 5: {"step": 5, "labels": {"shape": {"z": scores(0.2)}}}}
    history = content.probe_history(changed(record, probes=early | one_probe(shape=label(0.9, 0.5))))
    assert history.count("<svg") == 1 and history.count("<circle") == 3  # z twice, pooled once


def test_a_decoder_that_ignores_its_latent_is_warned_about(record):
    deaf = monitor_reading(0.5) | {"monitor/use": 0.0, "monitor/loss_shuffled": 0.225}
    rows = [{"step": 1, "images": 32} | deaf]
    assert "ignores the latent" in content.latent(changed(record, metrics=rows))
    assert "warn" not in content.latent(record)


def test_every_section_of_z_has_its_bar(record):
    assert content.latent(record).count("<rect") == SECTIONS


def test_every_picture_has_its_caption_and_how_it_was_made(record):
    words = text(content.generated(record))
    for caption in content.CAPTIONS.values():
        assert caption in words
    assert "step 750, seed 0" in words


def test_pictures_of_training_are_shown_where_there_are_no_others(record):
    words = text(content.generated(changed(record, pictures={})))
    assert "No samples yet" in words and "Grids drawn while training" in words


def test_a_broken_picture_is_refused(record):
    with pytest.raises(ValueError, match="expected a PNG"):
        content.generated(changed(record, pictures={"views": Picture(png=b"cut")}))


def test_changed_keys_come_before_the_whole_config(record):
    words = text(content.configuration(record))
    assert words.index("model.dropout") < words.index("Every key") < words.index("model.dropout = 0.0")
    assert (
        "train.batch" in words[: words.index("Every key")]
        and "heads" not in words[: words.index("Every key")]
    )


def test_commands_and_versions_are_there(record):
    words = text(content.provenance(record))
    assert "experiments.train --config=experiments/configs/quickstart.py" in words and "jax 0.10.2" in words


def test_the_verdict_says_how_much_the_denoiser_needs_the_right_latent(record):
    rows = [monitor_reading(1.0)]
    assert "loss is 1.4 times as high" in summary.latent_verdict(changed(record, metrics=rows))
