"""A run that is told its views, with several sources: trained with pictures and monitor, stopped, gone on, drawn from.

The encoder sees the rays of its sources, the denoiser those of its target, and attends to the sources.
"""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import export, report, sample, train
from experiments.networks import cameras_alone
from experiments.pictures import beside
from experiments.runs import open_run
from soda_jax.evaluation.baselines import calibrated
from soda_jax.report.figures import describe
from soda_jax.report.page import png_size
from soda_jax.training import checkpoints
from tests import prepared_data, small_job
from tests.small_config import BATCH

STEPS = 4
LENS = (1.25, 1.5, 0.5, 0.5)
POSED = {
    "data.name": "posed",
    "data.pair": "pose",
    "data.channels": 3,
    "data.sources": 2,
    "data.source_size": 16,
    "model.rays": "sphere",
    "model.ray_encoding": "octaves",
    "model.ray_frequencies": 2,
    "model.rgb_projection": 4,
    "model.source_rays": True,
    "model.source_lens": LENS,
    "model.cross_attention": True,
    "samples.every_images": 2 * BATCH,
    "monitor.every_images": STEPS * BATCH,
    "train.images": STEPS * BATCH,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The step, compiled once for all runs."""
    prepared_data.posed()
    return train.compile_step(small_job.job(tmp_path_factory.mktemp("program"), POSED), lambda text: None)


def run(program, workdir, changes=None, stop=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_step", lambda job, say: program)
        return small_job.run(workdir, POSED | (changes or {}), stop)


@pytest.fixture(scope="module")
def workdir(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("posed")
    assert run(program, folder).kind == "finished"
    return folder


def test_a_run_that_was_stopped_ends_like_one_that_was_not(program, workdir, tmp_path):
    """Nor does it matter whether anybody looked on."""
    quiet = {"samples.every_images": 0, "monitor.every_images": 0}
    assert run(program, tmp_path, quiet, small_job.StopAt(2)).step == 2
    assert run(program, tmp_path, quiet).step == STEPS
    one, other = (checkpoints.load_as_saved(folder / "checkpoints", STEPS) for folder in (workdir, tmp_path))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    losses = [[r["loss"] for r in small_job.records(folder) if "loss" in r] for folder in (workdir, tmp_path)]
    assert losses[0][-1] == losses[1][-1]


def test_the_latent_was_looked_at(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    looked = [r for r in records if "monitor/use" in r]
    assert looked and all(np.isfinite(v) for v in looked[-1].values() if isinstance(v, float))


def test_pictures_are_of_the_view_that_was_asked_for(workdir):
    assert sample.main([f"--workdir={workdir}", "--count=3"]) == 0
    path = workdir / "samples" / f"{STEPS}_views.png"
    assert "told the camera of the view that it paints, and looks at the sources" in describe(path)
    width, height = png_size(path.read_bytes())
    assert width / height > 2  # 2 sources, the target and 5 drawings, in 3 rows
    with Image.open(path) as grid:
        assert np.asarray(grid).std() > 10
    assert {p.name for p in (workdir / "samples").glob("step_*.png")} == {
        "step_00000002.png",
        "step_00000004.png",
    }
    assert report.main([f"--workdir={workdir}"]) == 0
    assert "told the camera of the view" in (workdir / "report.html").read_text()


def test_the_encoder_is_probed_without_cameras(workdir):
    """Features, and the statistics of the untrained encoder, ask for no camera, but the lens that the config knows."""
    run, images = open_run(workdir), np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    assert run.method.encode(run.ema_variables(), jax.numpy.asarray(images))["z"].shape == (20, 6)
    batches = [{"image": images, "valid": np.ones(20, bool)}]
    fresh = run.untrained_variables()
    cameras = cameras_alone(run.config)
    stats = calibrated(run.method, fresh, run.spec, batches, seed=0, cameras=cameras)["batch_stats"]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(stats))
    moved = [
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (stats, fresh["batch_stats"])), strict=True)
    ]
    assert np.mean(moved) > 0.9


def test_what_the_denoiser_is_told_beside_z():
    """By rows, and only what there is."""
    views = {"source": np.zeros((3, 2, 8, 8, 3)), "context": np.arange(6).reshape(3, 2)}
    assert beside({"source": views["source"]}) == {}
    np.testing.assert_array_equal(beside(views, [2, 0])["context"], [[4, 5], [0, 1]])


def test_an_encoder_that_sees_rays_is_not_exported(workdir, tmp_path, capsys):
    assert export.main([f"--workdir={workdir}", f"--out={tmp_path}/bundle"]) == 1
    assert "model.source_rays=True" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_lens_is_asked_for_before_anything_is_trained(tmp_path):
    prepared_data.posed()
    with pytest.raises(ValueError, match=r"model\.source_lens.*'posed' has \(1\.25, 1\.5, 0\.5, 0\.5\)"):
        small_job.job(tmp_path, POSED | {"model.source_lens": ()})
