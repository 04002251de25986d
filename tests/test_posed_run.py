"""A run whose denoiser is told the view: trained with pictures and monitor, stopped, gone on, drawn from, looked at."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import report, sample
from experiments.runs import open_run
from soda_jax.evaluation.baselines import calibrated
from soda_jax.report.figures import describe
from soda_jax.training import checkpoints
from tests import prepared_data, small_job
from tests.small_config import BATCH

STEPS = 4
POSED = {
    "data.name": "posed",
    "data.pair": "pose",
    "data.channels": 3,
    "model.rays": "moment",
    "samples.every_images": 2 * BATCH,
    "monitor.every_images": 2 * BATCH,
    "train.images": STEPS * BATCH,
}


def train(workdir, stop=None):
    prepared_data.posed()
    return small_job.run(workdir, POSED, stop)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("posed")
    assert train(folder).kind == "finished"
    return folder


def test_a_run_that_was_stopped_ends_like_one_that_was_not(workdir, tmp_path):
    assert train(tmp_path, small_job.StopAt(2)).step == 2
    assert train(tmp_path).step == STEPS
    one, other = (checkpoints.load_as_saved(folder / "checkpoints", STEPS) for folder in (workdir, tmp_path))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    assert small_job.records(workdir)[-1] == small_job.records(tmp_path)[-1]


def test_pictures_are_of_the_view_that_was_asked_for(workdir):
    assert sample.main([f"--workdir={workdir}", "--count=3"]) == 0
    path = workdir / "samples" / f"{STEPS}_views.png"
    assert "told the camera of the view" in describe(path)
    with Image.open(path) as grid:
        assert np.asarray(grid).std() > 10
    assert {p.name for p in (workdir / "samples").glob("step_*.png")} == {
        "step_00000002.png",
        "step_00000004.png",
    }
    assert report.main([f"--workdir={workdir}"]) == 0
    assert "told the camera of the view" in (workdir / "report.html").read_text()


def test_the_encoder_is_probed_without_cameras(workdir):
    """Features, and the statistics of the untrained encoder, ask for no camera: they are of the source alone."""
    run, images = open_run(workdir), np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    assert run.method.encode(run.ema_variables(), jax.numpy.asarray(images))["z"].shape == (20, 6)
    batches = [{"image": images, "valid": np.ones(20, bool)}]
    fresh = run.untrained_variables()
    stats = calibrated(run.method, fresh, run.spec, batches, seed=0)["batch_stats"]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(stats))
    moved = [
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (stats, fresh["batch_stats"])), strict=True)
    ]
    assert np.mean(moved) > 0.9
