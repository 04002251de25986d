"""experiments.alignment: which views are measured, checkpoint by checkpoint, what stays, and what is shown."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import alignment, alignment_exhibit, report
from soda_jax.report import exhibit
from tests import small_run

SHORT = ("--images=20", "--batch=8")


def results(workdir):
    return json.loads((workdir / "alignment" / "results.json").read_text())


@pytest.fixture(scope="module")
def ddae(tmp_path_factory):
    """A measured run of DDAE."""
    workdir = small_run.write_ddae(tmp_path_factory.mktemp("ddae") / "run")
    assert alignment.main([f"--workdir={workdir}", *SHORT]) == 0
    return workdir


def test_blocks_of_a_diffusion_net_agree_less_under_more_noise(ddae, tmp_path):
    """By the last block, which sees the noise most directly; and as a page shows it."""
    folder = tmp_path / "run"
    shutil.copytree(ddae, folder)
    assert alignment.main([f"--workdir={folder}", *SHORT, "--level=900"]) == 1  # would not compare
    shutil.rmtree(folder / "alignment")
    assert alignment.main([f"--workdir={folder}", *SHORT, "--level=900"]) == 0
    quiet, loud = (results(path)["steps"][0]["features"] for path in (ddae, folder))
    assert list(quiet) == ["out_1", "out_2", "out_3", "out_4"]
    assert 0 < quiet["out_4"]["align"] < 0.5 * loud["out_4"]["align"]
    assert results(folder)["settings"]["level"] == 900 and results(ddae)["settings"]["level"] == 11
    assert report.main([f"--workdir={ddae}"]) == 0
    page = (ddae / "report.html").read_text()
    assert "Alignment against uniformity" in page and f"{quiet['out_1']['align']:.4f}" in page
    assert (ddae / "alignment" / "training" / "alignment.svg").read_text().startswith("<svg xmlns")


def test_of_a_dit_every_block_is_measured(tmp_path):
    """That is, all its maps but the patches, which it has not worked on yet."""
    sizes = {"denoiser": "dit", "dit_size": "custom", "dit_width": 8, "dit_depth": 2, "dit_heads": 2}
    workdir = small_run.write_ddae(tmp_path / "run", sizes)
    assert alignment.main([f"--workdir={workdir}", *SHORT]) == 0
    features = results(workdir)["steps"][0]["features"]
    assert list(features) == ["block_1", "block_2"] and features["block_2"]["align"] > 0


def test_noise_belongs_to_the_image_and_its_view(ddae):
    """The same two features of an image in whichever batch; another draw in the other view, and of another seed."""
    job = alignment.prepare(alignment._parser().parse_args([f"--workdir={ddae}", *SHORT]))
    variables = job.run.encoder_variables()
    images = np.repeat(next(iter(alignment.batches(job)))["image"][:1], 3, axis=0)
    batch = {"image": jnp.asarray(images), "index": jnp.array([3, 4, 3])}
    first, second = (np.asarray(view["out_4"]) for view in job.noises(variables, batch))
    np.testing.assert_allclose(first[0], first[2], rtol=1e-6)
    assert np.abs(first[0] - first[1]).max() > 1e-4 and np.abs(first[0] - second[0]).max() > 1e-4


@pytest.fixture(scope="module")
def soda(tmp_path_factory):
    """A measured run of SODA, with two checkpoints; views are two cameras."""
    workdir = small_run.write(tmp_path_factory.mktemp("soda") / "run")
    assert alignment.main([f"--workdir={workdir}", *SHORT, "--steps=2"]) == 0
    return workdir


def test_checkpoints_are_measured_once_and_stay_when_they_are_gone(soda, capsys):
    """The oldest is deleted, the newest is new; one whose weights have changed is measured again."""
    first = results(soda)["steps"]
    assert [row["step"] for row in first] == [2] and list(first[0]["features"]) == ["z", "pooled"]
    assert alignment.main([f"--workdir={soda}", *SHORT]) == 0
    assert "step 2 is measured already" in capsys.readouterr().out
    shutil.rmtree(soda / "checkpoints" / "2")
    assert alignment.main([f"--workdir={soda}", *SHORT]) == 0
    rows = results(soda)["steps"]
    assert [row["step"] for row in rows] == [2, 4] and rows[0] == first[0]
    assert rows[0]["features"] != rows[1]["features"]
    changed = results(soda)
    changed["steps"][1].update(weights="others", features={})
    (soda / "alignment" / "results.json").write_text(json.dumps(changed))
    assert alignment.main([f"--workdir={soda}", *SHORT, "--steps=2,4"]) == 0
    assert results(soda)["steps"] == rows


def test_views_are_two_cameras_of_a_scene_or_two_draws_of_an_image(soda):
    job = alignment.prepare(alignment._parser().parse_args([f"--workdir={soda}", *SHORT]))
    others = alignment.partners(job)
    assert np.all(others // 4 == job.images // 4) and np.all(others != job.images) and others.max() < 96
    with job.run.config.unlocked():
        job.run.config.data.pair = "augment"
    np.testing.assert_array_equal(alignment.partners(job), job.images)
    first, again = (next(iter(alignment.batches(job))) for _ in range(2))
    np.testing.assert_array_equal(first["other"], again["other"])
    assert np.all(np.any(first["image"] != first["other"], axis=(1, 2, 3)))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--level=3",), "--level is for runs of config.method='ddae', found 'soda'"),
        (("--batch=1",), "--batch must be 2 or more, found 1"),
        ((*SHORT, "--steps=7"), "--steps=7: "),
        (
            ("--images=10", "--batch=8"),
            "was measured with other settings ({'images': 20}, asked for: {'images': 10})",
        ),
    ],
)
def test_what_cannot_be_is_told(soda, flags, words, capsys):
    assert alignment.main([f"--workdir={soda}", *flags]) == 1
    assert words in capsys.readouterr().err


def test_one_image_twice_is_nothing_to_measure(soda, tmp_path, capsys):
    """Nor is a folder that is no run."""
    shutil.copytree(soda, tmp_path / "same")
    record = json.loads((soda / "config.json").read_text())
    record["config"]["data"]["pair"] = "same"
    (tmp_path / "same" / "config.json").write_text(json.dumps(record))
    assert alignment.main([f"--workdir={tmp_path / 'same'}"]) == 1
    assert "both views are one image" in capsys.readouterr().err
    assert alignment.main([f"--workdir={tmp_path / 'none'}"]) == 1
    assert "found no config.json there" in capsys.readouterr().err


def test_all_images_are_measured_unless_there_are_to_be_fewer_and_the_same_ones_every_time(soda):
    def numbers(*flags):
        return alignment.prepare(alignment._parser().parse_args([f"--workdir={soda}", *flags])).images

    assert sorted(numbers()) == list(range(96))
    np.testing.assert_array_equal(numbers("--images=20"), numbers("--images=20"))
    np.testing.assert_array_equal(numbers("--images=20"), numbers("--images=30")[:20])
    assert len(set(numbers("--images=20"))) == 20
    assert not np.array_equal(numbers("--images=20"), numbers("--images=20", "--seed=1"))
    assert np.any(np.diff(numbers()) < 0)  # neighbours of a sorted folder are of one class


def made_up():
    """Results of two features at three steps."""
    return {
        "settings": {"images": 1000, "batch": 8, "seed": 0, "level": 11, "config": "abc"},
        "steps": [
            {
                "step": step,
                "images": 8 * step,
                "features": {
                    "out_1": {"align": 1 / step, "uniform": -step / 10},
                    "out_2": {"align": 2 / step, "uniform": -step / 20},
                },
                "weights": "x",
            }
            for step in (10, 20, 40)
        ],
    }


def test_the_figure_is_alignment_over_uniformity_with_a_line_a_feature():
    against, align, uniform = alignment_exhibit.curves_of(made_up())
    assert against.x == "uniformity"
    assert against.series["out_2"] == ([-0.5, -1.0, -2.0], [0.2, 0.1, 0.05])
    assert align.series["out_1"] == ([80, 160, 320], [0.1, 0.05, 0.025])
    assert uniform.series["out_1"] == ([80, 160, 320], [-1.0, -2.0, -4.0])


def test_the_terminal_shows_a_row_a_checkpoint_and_feature():
    lines = alignment_exhibit.text(made_up()).splitlines()
    assert len(lines) == 7
    assert lines[-1].split() == ["40", "out_2", "0.0500", "-2.0000"]


def test_the_page_shows_the_newest_checkpoint_as_a_table(tmp_path):
    alignment_exhibit.leave(tmp_path / "alignment" / "training", made_up(), "python -m experiments.alignment")
    (found,) = exhibit.find(tmp_path)
    (table,) = found.exhibit.tables
    assert table.head == ["step 40", "alignment", "uniformity"]
    assert table.rows[0] == ["out_1", "0.0250", "-4.0000"]
    assert "two draws of noise" in found.exhibit.paragraphs[0] and "1,000" in found.exhibit.paragraphs[0]
    assert exhibit.render(found).count("<svg") == 3
    picture = (tmp_path / "alignment" / "training" / "alignment.svg").read_text()
    assert picture.count("<path") == 2 and "uniformity" in picture
