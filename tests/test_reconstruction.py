"""Reconstruction: which images, what is measured of them, and that a call goes on where another was stopped."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from experiments import build, methods, reconstruction, sample
from experiments.reconstruction import measured, results_of, stored
from experiments.reconstruction_job import prepare, settings_hash, views_of
from experiments.runs import open_run
from soda_jax.evaluation import image_quality
from soda_jax.report import exhibit
from soda_jax.report.figures import describe
from tests import prepared_data, tiny
from tests.test_sample_main import write_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A small run at step 4."""
    return write_run(tmp_path_factory.mktemp("run"), steps=(4,))


def tiny_job(workdir, steps=(1, 4), images=9, **changes):
    """A job whose method is tiny, of grey images of 16 x 16 pixels, and its variables."""
    run, method = open_run(workdir), tiny.soda()
    config = run.config.copy_and_resolve_references()
    config.data.channels = 1
    config.samples.update(changes)
    job = prepare(dataclasses.replace(run, config=config, method=method), steps, images, seed=0)
    return job, tiny.variables(method)


@pytest.fixture(scope="module")
def found(workdir):
    """The job, and all that it measures."""
    job, variables = tiny_job(workdir)
    todo = [(kind, n) for n in job.steps for kind in reconstruction.KINDS]
    arrays = {name: array for new in measured(job, variables, todo) for name, array in new.items()}
    return job, arrays


def test_the_main_leaves_results_a_picture_and_an_exhibit(workdir, capsys):
    """And finds them; where it was stopped before the last number of steps, it goes on with that alone."""
    arguments = [f"--workdir={workdir}", "--mode=reconstruction", "--images=9"]
    folder = workdir / "reconstruction" / "4"
    assert sample.main([*arguments, "--steps=2,1"]) == 0
    results, arrays = json.loads((folder / "results.json").read_text()), loaded(folder)
    assert len(arrays["image"]) == 9
    for kind in ("stochastic", "inverted"):
        assert list(results[kind]) == ["1", "2"]
        for n, name in itertools.product(("1", "2"), ("psnr", "ssim", "mse")):
            assert results[kind][n][name] == pytest.approx(arrays[f"{kind}/{n}/{name}"].mean(), rel=1e-5)
    shown = exhibit.read(folder).exhibit
    names = ["noise drawn", "noise by inversion"]
    assert len(shown.tables[0].rows) == 4 and list(shown.curves[0].series) == names
    assert "9 of 40 test images, never trained on" in describe(folder / "pictures.png")
    capsys.readouterr()
    assert sample.main([*arguments, "--steps=2"]) == 0
    assert "are there already" in capsys.readouterr().out
    halfway = {name: array for name, array in arrays.items() if not name.startswith("inverted/2")}
    reconstruction.store(folder / "per_image.npz", results["made_from"], halfway)
    (folder / "results.json").unlink()
    assert sample.main([*arguments, "--steps=1,2"]) == 0
    out = capsys.readouterr().out
    assert "inverted, 2 steps" in out and out.count("PSNR") == 1
    again = loaded(folder)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    assert json.loads((folder / "results.json").read_text()) == results


def loaded(folder):
    """per_image.npz, but for what it was made from."""
    with np.load(folder / "per_image.npz") as file:
        return {name: array for name, array in file.items() if name != "made_from"}


def test_the_scores_are_those_of_scikit_image(found):
    """Of what was drawn, in 0..255; `drawn` is rounded, which the tolerance allows for."""
    metrics = pytest.importorskip("skimage.metrics")
    job, arrays = found
    target = views_of(job, job.images[:6])["target"]
    for i in range(6):
        drawn = arrays["stochastic/4/drawn"][i]
        psnr = metrics.peak_signal_noise_ratio(target[i], drawn)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
        maps = metrics.structural_similarity(target[i, ..., 0], drawn[..., 0], full=True, **options)[1]
        ssim = maps[5:-5, 5:-5].mean()
        assert arrays["stochastic/4/psnr"][i] == pytest.approx(psnr, abs=0.05)
        assert arrays["stochastic/4/ssim"][i] == pytest.approx(ssim, abs=5e-3)
        assert arrays["stochastic/4/mse"][i] == pytest.approx(10 ** (-psnr / 10), rel=0.02)


def test_from_inverted_noise_the_images_come_back_and_from_any_noise_they_do_not(found):
    _, arrays = found
    assert arrays["inverted/4/psnr"].min() > 40 > 20 > arrays["stochastic/4/psnr"].max()
    assert arrays["inverted/4/psnr"].max() <= image_quality.MOST


def test_a_score_belongs_to_its_image_however_they_are_cut_into_batches(found, workdir):
    """Fewer images, in a batch of another size: the same scores for the same images."""
    job, arrays = found
    few, variables = tiny_job(workdir, steps=(4,))
    few = dataclasses.replace(few, images=job.images[[2, 7]])
    (again,) = measured(few, variables, [("stochastic", 4)])
    np.testing.assert_allclose(again["stochastic/4/psnr"], arrays["stochastic/4/psnr"][[2, 7]], rtol=1e-4)
    assert again["stochastic/4/drawn"].shape == (2, 16, 16, 1)


def test_intervals_are_over_scenes_and_calls_count_inversion_and_guidance(found, workdir):
    job, arrays = found
    results = results_of(job, arrays)
    low, high = results["stochastic"]["4"]["psnr_ci95"]
    assert low < results["stochastic"]["4"]["psnr"] < high
    assert results["inverted"]["4"]["calls"] == 4 + 4 * 3 and results["stochastic"]["4"]["calls"] == 4
    assert results["of"] == 40 and results["samplers"]["inverted"] == "DDIM, not clipped"
    led, _ = tiny_job(workdir, sampler="heun", guidance=0.5)
    assert [reconstruction.calls_of(led, kind, 4)["calls"] for kind in reconstruction.KINDS] == [12, 38]


def test_results_hold_what_both_kinds_were_made_of_and_one_scene_has_no_spread(found):
    job, arrays = found
    halfway = {name: array for name, array in arrays.items() if not name.startswith("inverted/4")}
    assert list(results_of(job, halfway)["stochastic"]) == ["1"]
    alone = dataclasses.replace(job, images=np.arange(9) // 9)  # all of scene 0
    low, high = results_of(alone, arrays)["stochastic"]["4"]["ssim_ci95"]
    assert low == pytest.approx(high)


def test_what_was_made_of_something_else_or_is_damaged_is_made_again(tmp_path):
    path, arrays = tmp_path / "per_image.npz", {"image": np.arange(3)}
    reconstruction.store(path, {"weights": "a"}, arrays)
    assert stored(path, {"weights": "a"})["image"].tolist() == [0, 1, 2]
    assert stored(path, {"weights": "b"}) == {} == stored(tmp_path / "none.npz", {"weights": "a"})
    path.write_bytes(path.read_bytes()[:100])
    assert stored(path, {"weights": "a"}) == {}


def test_source_and_target_are_one_view_and_its_camera(workdir):
    run = open_run(workdir)
    config = run.config.copy_and_resolve_references()
    prepared_data.posed()
    config.data.name, config.model.rays = "posed", "moment"
    method = methods.method(config, build.batch_spec(config))
    job = prepare(dataclasses.replace(run, config=config, method=method), (1,), None, seed=0)
    assert len(job.images) == 5 * 4
    made = views_of(job, np.array([6, 1]))  # camera 2 of the second scene, camera 1 of the first
    keys = made["target"][:, 0, 0, 0]
    assert (keys % 10).tolist() == [2, 1] and keys[0] // 10 != keys[1] // 10
    np.testing.assert_array_equal(made["source"], made["target"])
    for name in ("source_camera", "target_camera"):
        np.testing.assert_array_equal(made[name][:, 0, 3], keys)


def test_what_changes_the_scores_changes_the_hash(workdir):
    plain, *others = (
        settings_hash(job)
        for job, _ in (
            tiny_job(workdir),
            tiny_job(workdir, eta=0.5),
            tiny_job(workdir, images=8),
            tiny_job(workdir, clip_x0=False),
        )
    )
    assert len({plain, *others}) == 4
    assert plain == settings_hash(tiny_job(workdir, steps=(3,), count=2)[0])


def test_flags_that_cannot_be_are_said_in_one_line_before_anything_is_drawn(workdir, capsys):
    for flag, words in [
        ("--steps=0", "--steps: expected numbers of 1 to diffusion.steps - 1 = 999, found [0]"),
        ("--steps=5,1000", "found [5, 1000]"),
        ("--images=0", "--images must be 1 or more, found 0"),
    ]:
        assert sample.main([f"--workdir={workdir}", "--mode=reconstruction", flag]) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    with pytest.raises(SystemExit):
        sample.main([f"--workdir={workdir}", "--steps=a"])
    assert "--steps" in capsys.readouterr().err


def test_images_too_small_for_ssim_are_refused(workdir):
    run = open_run(workdir)
    config = run.config.copy_and_resolve_references()
    config.data.image_size = 8
    with pytest.raises(ValueError, match=r"data\.image_size=8: SSIM needs images of 11 pixels"):
        prepare(dataclasses.replace(run, config=config), (1,), None, 0)
