"""Novel views of a small run: what is asked, what is compared with what, and what is written."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from data.sources import open_data_set
from experiments import build, held_out, novel_views, sample
from experiments import novel_view_pictures as figures
from experiments.held_out import pairs_of, scenes_of
from experiments.runs import open_run
from soda_jax.evaluation.image_quality import MOST
from soda_jax.evaluation.novel_views import MEASURES
from soda_jax.report import exhibit
from tests import posed_run, prepared_data

SCENES, SAMPLES = 3, 2


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with a checkpoint at step 2."""
    return posed_run.write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pairs():
    """Three scenes, each from its other three cameras."""
    return pairs_of(scenes_of(prepared_data.posed(), SCENES, seed=0), posed_run.config())


@pytest.fixture(scope="module")
def results(workdir):
    """What the main leaves beside a regressor that has seen enough, and leaves alone the second time."""
    posed_run.write(workdir / "regressor", changes={"method": "regressor"})
    arguments = [f"--workdir={workdir}", "--mode=novel_views", f"--scenes={SCENES}", f"--samples={SAMPLES}"]
    assert sample.main(arguments) == 0
    folder = workdir / "novel_views" / "2"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sample.main(arguments) == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    return folder, json.loads((folder / "results.json").read_text())


def decibels(a, b):
    """PSNR by hand."""
    error = np.mean((a.astype(float) - b.astype(float)) ** 2, axis=(1, 2, 3)) / 255**2
    return np.mean(-10 * np.log10(error))


def test_pairs_are_one_camera_of_a_test_scene_and_each_of_its_others(pairs):
    """Every image of this data set says in its first pixel where its camera stands."""
    source, target = (images[:, 0, 0, 0].astype(int) for images in (pairs.sources, pairs.targets))
    assert len(set(source // 10)) == SCENES and set(source // 10) <= {8, 9, 10, 11, 12}
    np.testing.assert_array_equal(pairs.row, np.repeat(np.arange(SCENES), 3))
    for row in range(SCENES):
        scene, camera = divmod(source[row], 10)
        assert target[pairs.row == row].tolist() == [10 * scene + v for v in range(4) if v != camera]
    np.testing.assert_array_equal(pairs.cameras["target_camera"][:, 0, 3], target)
    np.testing.assert_array_equal(pairs.cameras["source_camera"][:, 0, 3], source[pairs.row])
    np.testing.assert_array_equal(pairs.nearest, pairs.sources[pairs.row])  # of one source, it is the nearest


def test_of_several_sources_none_is_wanted_and_the_nearest_is_copied():
    config = posed_run.config({"data.sources": 2})
    scenes = scenes_of(prepared_data.posed(), SCENES, seed=0, sources=2)
    pairs = pairs_of(scenes, config)
    source, target = pairs.sources[:, :, 0, 0, 0].astype(int), pairs.targets[:, 0, 0, 0].astype(int)
    assert source.shape == (SCENES, 2) and len(target) == 2 * SCENES
    for row, scene in enumerate(scenes):
        assert len({*scene.cameras, *scene.others}) == 4
        assert not set(source[row]) & set(target[pairs.row == row])
    np.testing.assert_array_equal(pairs.cameras["source_camera"][:, :, 0, 3], source[pairs.row])
    np.testing.assert_array_equal(pairs.seen["target_camera"][:, 0, 3], source[:, 0])
    copied = pairs.nearest[:, 0, 0, 0].astype(int)
    assert all(copy in source[row] for copy, row in zip(copied, pairs.row, strict=True))
    assert (copied != source[pairs.row, 0]).any()
    first = scenes_of(prepared_data.posed(), SCENES, seed=0)
    assert [scene.cameras[0] for scene in scenes] == [scene.cameras[0] for scene in first]


def test_views_of_several_sources_are_painted_with_what_was_seen_of_them(tmp_path):
    changes = {"data.sources": 2, "model.cross_attention": True, "model.source_rays": True}
    changes["model.source_lens"] = (1.0, 1.0, 0.5, 0.5)
    run = posed_run.write(tmp_path, changes=changes)
    arguments = [f"--workdir={run}", "--mode=novel_views", "--scenes=2", "--samples=1", "--regressor=none"]
    assert sample.main(arguments) == 0
    found = json.loads((run / "novel_views" / "2" / "results.json").read_text())
    assert found["pairs"] == 2 * 2 and found["baselines"]["regressor"] is None
    with Image.open(run / "novel_views" / "2" / "views.png") as grid:
        assert grid.width == (96 + 6) * 6  # two sources, target, mean, sample, nearest
    with Image.open(run / "novel_views" / "2" / "orbit.gif") as walk:
        assert walk.n_frames == novel_views.FRAMES


def test_a_walk_is_asked_for_as_seen_from_the_source():
    (scene, *_) = scenes_of(prepared_data.posed(), 1, seed=3)
    walk = scene.orbit(6)
    own = scene.example["camera_to_world"][scene.cameras[0]]
    assert walk["target_camera"].shape == (6, 4, 4) and walk["target_camera"].dtype == np.float32
    np.testing.assert_array_equal(walk["source_camera"], np.tile(own, (6, 1, 1)))
    turns = walk["target_camera"][:, :3, :3]
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(3), (6, 1, 1)), atol=1e-6)
    heights = walk["target_camera"][:, 1, 3]  # y is down
    np.testing.assert_allclose(heights, own[1, 3], atol=1e-5)
    assert np.ptp(walk["target_camera"][:, 0, 3]) > 1


def test_each_kind_of_view_gets_its_own_figures(pairs):
    """The first sample is the true view, the second black; the regressor is white."""
    black = np.zeros_like(pairs.targets)
    views = {"soda": np.stack([pairs.targets, black], axis=1), "regressor": 255 - black[:, None]}
    found = novel_views.table(novel_views.measured(pairs, views), pairs.row)
    half = pairs.targets.astype(float) / 2
    assert found["one_sample"]["psnr"] == MOST and found["one_sample"]["ssim"] == pytest.approx(1, abs=1e-5)
    assert found["psnr"] == pytest.approx(decibels(half, pairs.targets), abs=1e-3)
    assert found["sharpness"] == pytest.approx(0.25, abs=1e-4) and found["one_sample"]["sharpness"] == 1.0
    nearest, regressor = (found["baselines"][name] for name in ("nearest_view", "regressor"))
    assert nearest["psnr"] == pytest.approx(decibels(pairs.nearest, pairs.targets), abs=1e-3)
    assert regressor["psnr"] == pytest.approx(decibels(255 - black, pairs.targets), abs=1e-3)
    assert regressor["sharpness"] == 0.0 and regressor["feature_distance_random_resnet18"] > 0.01
    gain = found["gain"]["regressor"]
    assert gain["psnr"] == pytest.approx(found["psnr"] - regressor["psnr"], abs=1e-4)
    assert gain["sharpness"] == pytest.approx(1.0)


def test_the_results_have_the_names_that_scripts_rely_on(results, pairs):
    folder, found = results
    baselines = found["baselines"]
    assert set(baselines) == {"nearest_view", "regressor"}
    for row in (found, found["one_sample"], *baselines.values()):
        for name in MEASURES:
            low, high = row[f"{name}_ci95"]
            assert low <= row[name] <= high
    assert (found["scenes"], found["pairs"], found["samples"], found["step"]) == (SCENES, 9, SAMPLES, 2)
    assert baselines["nearest_view"]["psnr"] == pytest.approx(
        decibels(pairs.nearest, pairs.targets), abs=1e-3
    )
    assert found["psnr"] > found["one_sample"]["psnr"]  # the mean of what differs is nearer to any target
    assert found["regressor"] == {"workdir": str(folder.parents[1] / "regressor"), "step": 2, "images": 16}


def test_the_pictures_and_the_page_show_it(results):
    folder, found = results
    with Image.open(folder / "orbit.gif") as film:
        assert film.n_frames == novel_views.FRAMES and film.info["loop"] == 0
    cell = 96 + 6
    with Image.open(folder / "views.png") as grid:
        assert grid.width == cell * (5 + SAMPLES) and grid.height // cell == SCENES
    (shown,) = exhibit.find(folder.parents[1])
    assert shown.exhibit.title == "Novel views" and set(shown.pictures) == set(figures.FILES)
    rows = [row[0] for row in shown.exhibit.tables[0].rows]
    assert rows == ["mean of 2 samples", "one sample", "regressor", "nearest source view, copied"]
    text = figures.table_text(found)
    assert f"{found['psnr']:.2f} [" in text and "against the regressor: " in text


def test_without_a_regressor_its_row_is_left_out(results):
    found = results[1]
    alone = {**found, "regressor": None, "baselines": {**found["baselines"], "regressor": None}}
    alone["gain"] = {"nearest_view": found["gain"]["nearest_view"]}
    assert "regressor" not in figures.table_text(alone) + figures.paragraph(alone)
    assert "regressor" in figures.table_text(found) and "16 images" in figures.paragraph(found)


def test_what_changes_the_results_changes_what_they_say_they_are_made_from(workdir):
    run, weights = open_run(workdir), {"soda": {"a": np.zeros(3)}}
    job = novel_views.Job(run=run, dataset=build.dataset(run.config), scenes=2, samples=2, rows=2, seed=0)
    config = run.config.copy_and_resolve_references()
    config.samples.guidance = 2.0
    others = [dataclasses.replace(job, **{name: 1}) for name in ("scenes", "samples", "rows", "seed")]
    others.append(dataclasses.replace(job, run=dataclasses.replace(run, config=config)))
    origins = [json.dumps(novel_views.made_from(other, weights)) for other in (job, *others)]
    origins += [json.dumps(novel_views.made_from(job, w)) for w in ({"soda": {"a": np.ones(3)}}, weights)]
    assert len(set(origins)) == len(origins) - 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.rays": "none"}, r"config\.model\.rays='none'.*model\.rays='moment'"),
        (
            {"model.rays": "none", "data.name": "single3", "data.pair": "augment"},
            r"needs cameras, .*'single3'",
        ),
        ({"data.image_size": 8}, r"config\.data\.image_size=8: SSIM needs 11 pixels"),
        ({"data.test_split": "none"}, r"config\.data\.test_split"),
    ],
)
def test_a_run_that_cannot_be_asked_for_a_view_is_told_which_key(workdir, changes, words):
    prepared_data.single(3)
    run, config = open_run(workdir), posed_run.config(changes)
    method = dataclasses.replace(run.method, rays=None if config.model.rays == "none" else run.method.rays)
    run = dataclasses.replace(run, config=config, method=method)
    dataset = open_data_set(config.data.name, config.data.dir, test_split=config.data.test_split)
    with pytest.raises(ValueError, match=words) as error:
        held_out.check(run, dataset)
    assert "\n" not in str(error.value)


def test_counts_that_are_none_are_refused_in_one_line(workdir, capsys):
    for flag in ("scenes", "samples", "count"):
        assert sample.main([f"--workdir={workdir}", "--mode=novel_views", f"--{flag}=0"]) == 1
        error = capsys.readouterr().err
        assert f"--{flag} must be 1 or more, found 0" in error and error.count("\n") == 1
