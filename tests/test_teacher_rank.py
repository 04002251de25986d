"""The rank of a teacher's feature over time: of a known one, of a tiny DDAE, on the page, and what is refused."""

import dataclasses
import json
import shutil
from xml.etree import ElementTree

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.views import decode
from experiments import report, teacher_rank
from experiments.probing import chosen_images
from experiments.teacher_rank import checked_times, prepare, ranks_by_time
from soda_jax.diffusion.frameworks import DDPM
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.base import to_float
from soda_jax.methods.ddae import DDAE
from tests import small_run

SHORT = ("--times=0,10,999", "--images=40")


class Known(nn.Module):
    """A net whose feature is the first 2 entries of the image below t = 0.5, and the first 5 from there on."""

    @nn.compact
    def __call__(self, xt, t, train=False, labels=None):
        flat = xt.reshape(len(xt), -1)
        kept = jnp.arange(flat.shape[1])[None] < jnp.where(t < 0.5, 2, 5)[:, None]
        return xt, {"middle/branch": jnp.where(kept, flat, 0.0).reshape(xt.shape)}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of DDAE as training leaves it."""
    return small_run.write_ddae(tmp_path_factory.mktemp("rank") / "run")


@pytest.fixture(scope="module")
def measured(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(workdir, folder)
    assert teacher_rank.main([f"--workdir={folder}", *SHORT]) == 0
    return folder


def results(folder) -> dict:
    return json.loads((folder / "teacher_rank" / "4" / "results.json").read_text())


def pixels(job, numbers):
    """These images of the training split in [-1, 1], flat, float64."""
    scenes = job.dataset.split("train").read(range(small_run.TRAIN))
    encoded = [image for scene in scenes for image in scene["images"]]
    images = np.stack([decode(encoded[i], 3) for i in numbers])
    return np.float64(images.reshape(len(images), -1)) / 127.5 - 1


def rank_of(x, power):
    """By the eigenvalues of the covariance."""
    variances = np.linalg.eigvalsh(np.cov(x.T)).clip(0) ** (power / 2)
    p = variances[variances > 1e-12] / variances.sum()
    return np.exp(-np.sum(p * np.log(p)))


def test_the_ranks_of_a_known_feature(workdir):
    """Of the images that were asked for, at the time after t, in both ways of counting."""
    job = prepare(str(workdir), None)
    known = DDAE(denoiser=Known(), framework=DDPM(schedule=Schedule(name="linear")))
    job = dataclasses.replace(job, run=dataclasses.replace(job.run, method=known))
    numbers = chosen_images(job, "train", 40)
    found = ranks_by_time(job, {"params": {"denoiser": {}}}, "middle/branch", (0, 498, 499, 999), numbers)
    assert found["features"] == 16 * 16 * 3 and found["t"] == [0, 498, 499, 999]
    x = pixels(job, numbers)
    for name, power in teacher_rank.RANKS.items():
        small, large = rank_of(x[:, :2], power), rank_of(x[:, :5], power)
        np.testing.assert_allclose(found["ranks"][name], [small, small, large, large], rtol=1e-3)
        assert small < 2 < large < 5


def test_a_tiny_net_is_read_as_repfusion_reads_it(measured):
    """Clean images, the time t + 1, the branch of the middle before its input is added, flat."""
    found, job = results(measured), prepare(str(measured), None)
    method, variables = job.run.method, job.run.ema_variables()
    flat = pixels(job, chosen_images(job, "train", 40))
    images = jnp.asarray(flat.reshape(-1, 16, 16, 3), jnp.float32)
    apply = jax.jit(method.denoiser.apply)
    for i, t in enumerate(found["t"]):
        net = {"params": variables["params"]["denoiser"]}
        told = jnp.full(40, (t + 1) / 1000)
        feature = apply(net, to_float(images), told)[1]["middle/branch"]
        x = np.asarray(feature, np.float64).reshape(40, -1)
        assert found["features"] == x.shape[1] and found["images"] == 40
        for name, power in teacher_rank.RANKS.items():
            spectrum = np.linalg.svd(x - x.mean(0), compute_uv=False) ** power
            p = spectrum / spectrum.sum()
            p = p[p > 0]
            assert found["ranks"][name][i] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=2e-3)
    assert all(1 <= rank < 40 for rank in found["ranks"]["variances"])


def test_there_is_a_picture_and_a_section_of_the_page(measured, capsys):
    picture = ElementTree.parse(measured / "teacher_rank" / "4" / "rank.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}path")) == 2
    assert "--c0" in picture[0].text
    assert report.main([f"--workdir={measured}"]) == 0
    page = (measured / "report.html").read_text()
    assert teacher_rank.TITLE in page and "40 clean training images" in page


def test_the_same_command_finds_it_and_another_one_does_not(measured, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(measured, folder)
    before = results(folder)
    assert teacher_rank.main([f"--workdir={folder}", *SHORT]) == 0
    said = capsys.readouterr().out
    assert "t = 10" not in said and "effective rank of the" in said and results(folder) == before
    assert teacher_rank.main([f"--workdir={folder}", "--times=10", "--images=30", "--layer=out_1"]) == 0
    assert results(folder)["layer"] == "out_1" and results(folder)["images"] == 30


def test_the_usual_times_are_those_that_the_net_has():
    assert checked_times((), 1000) == teacher_rank.TIMES
    assert checked_times((), 18) == (0, 1, 2, 5, 8, 10)
    assert checked_times((7, 3, 7), 18) == (3, 7)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--times=0,1000", "--times: [1000] are not within 0 to 999"),
        ("--layer=out_9", "--layer=out_9: the net has in_1"),
        ("--images=1", "--images=1: expected 2 or more"),
    ],
)
def test_what_is_not_there_is_told(workdir, flag, words, capsys):
    assert teacher_rank.main([f"--workdir={workdir}", flag]) == 1
    assert words in capsys.readouterr().err


def test_another_method_is_no_teacher(tmp_path, capsys):
    run = small_run.write(tmp_path / "soda", steps=(4,))
    assert teacher_rank.main([f"--workdir={run}"]) == 1
    assert "must be a run of config.method='ddae' with a checkpoint, found 'soda'" in capsys.readouterr().err
