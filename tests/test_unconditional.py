"""A prior on a small run, from its training to images from nothing: what it keeps, finds again and refuses."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, export, runs, sample, train
from experiments.configs import latent_prior
from experiments.job import prepare
from experiments.runs import open_run
from soda_jax.methods.base import FROZEN, encoder_variables
from soda_jax.report import exhibit
from soda_jax.report.page import png_size
from soda_jax.training.signals import StopRequest
from tests import small_run
from tests.test_sample_main import write_run

FLAGS = ("--mode=unconditional", "--images=6", "--train=40")


def trained(soda, workdir, steps, **changes):
    """A prior of 2 layers after so many steps; what was said."""
    config, said = latent_prior.get_config(str(soda)), []
    config.prior.update(layers=2, width=8)
    config.samples.steps = 3
    config.train.update(batch=8, images=8 * steps, log_every_images=8)
    config.update_from_flattened_dict(changes)
    assert train.run(prepare(config, workdir), StopRequest(), said.append).kind == "finished"
    return "\n".join(said)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A SODA run, a prior on it that went on once, and what was said both times."""
    soda, prior = (tmp_path_factory.mktemp(name) for name in ("soda", "prior"))
    write_run(soda, steps=(4,))
    return soda, prior, [trained(soda, prior, 2), trained(soda, prior, 3)]


def arguments(folders, *more):
    soda, prior, _ = folders
    return [f"--workdir={prior}", *FLAGS, f"--space=run:{soda}", *more]


def test_the_encoder_and_the_moments_of_z_are_those_of_the_run(folders):
    soda, prior, said = folders
    assert "the encoder is that of step 4" in said[0] and "going on from step 2" in said[1]
    assert "the encoder is" not in said[1]  # it is in the checkpoint
    run, variables = open_run(soda), open_run(soda).ema_variables()
    frozen = open_run(prior).ema_variables()["batch_stats"][FROZEN]
    jax.tree.map(np.testing.assert_array_equal, frozen["encoder"], encoder_variables(variables))
    about = json.loads((prior / "prior.json").read_text())
    assert about["step"] == 4 and about["images"] == small_run.TRAIN * small_run.CAMERAS
    source = build.dataset(run.config).split("train")
    images = [build.views(run.config).plain_pair(row)["source"] for row in all_images(source)]
    z = np.asarray(jax.jit(run.method.encode)(variables, jnp.asarray(np.stack(images)))["z"])
    np.testing.assert_allclose(frozen["latent"]["mean"], np.mean(z, 0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(frozen["latent"]["covariance"], np.cov(z.T), rtol=1e-2, atol=1e-5)


def all_images(source):
    """Each image as an example of its own."""
    for i in range(len(source)):
        example = source[i]
        for image in example["images"]:
            yield {**example, "images": [image]}


def test_images_from_nothing_are_measured_shown_and_found_again(folders, capsys):
    assert sample.main(arguments(folders)) == 0
    folder = folders[1] / "unconditional" / "3"
    found = json.loads((folder / "results.json").read_text())
    assert found["images"] == 6 and found["train"] == 40 and found["space"].startswith("encoder_")
    assert set(found["frechet"]) == {"prior", "gaussian", "test", "test_images"}
    assert all(value > 0 for value in found["frechet"].values())
    for space in ("pixels", "z"):
        assert found["nearest"][space]["prior"]["median"] > 0
    shown = exhibit.read(folder)
    assert len(shown.exhibit.tables) == 2 and len(shown.pictures) == 2
    assert png_size(shown.pictures["nearest.png"])[0] > 6 * 90
    before = (folder / "results.json").stat().st_mtime_ns
    assert sample.main(arguments(folders)) == 0
    assert "there already" in capsys.readouterr().out
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_a_decoder_that_moved_is_found_and_another_one_refused(folders, tmp_path, capsys):
    soda, prior, _ = folders
    copy = shutil.copytree(prior, tmp_path / "prior")
    about = json.loads((copy / "prior.json").read_text())
    (copy / "prior.json").write_text(json.dumps({**about, "workdir": str(tmp_path / "gone")}))
    moved = [f"--workdir={copy}", *FLAGS, f"--space=run:{soda}"]
    other = small_run.write(tmp_path / "other", steps=(4,))
    for flags, words in [
        (moved, f"{tmp_path}/gone: there is no run there"),
        ([*moved, f"--decoder={other}"], "has another encoder than the prior was trained on"),
        ([f"--workdir={soda}", *FLAGS], "--mode=unconditional needs a latent prior, found method='soda'"),
        ([*moved, "--images=1"], "--images must be 2 or more, found 1"),
    ]:
        assert sample.main(flags) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert sample.main([*moved, f"--decoder={soda}"]) == 0  # found: nothing that it is made of has changed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior.workdir": ""}, "prior.workdir must name a trained SODA run"),
        ({"prior.workdir": "/none"}, "prior.workdir=/none: there is no run there"),
        ({"model.encoder_width": 4}, r"set --config\.model\.encoder_width=8"),
        ({"samples.every_images": 8}, r"samples\.every_images must be 0 with method='latent_prior'"),
        ({"prior.schedule": "none"}, r"prior\.schedule='none' is unknown"),
    ],
)
def test_what_cannot_begin_is_said_before_anything_is_compiled(folders, tmp_path, changes, words):
    with pytest.raises((ValueError, OSError), match=words):
        trained(folders[0], tmp_path, 1, **changes)


def test_a_prior_has_no_encoder_of_its_own_to_export(folders, tmp_path):
    with pytest.raises(ValueError, match="export --workdir="):
        export.export(open_run(folders[1]), tmp_path / "bundle")
    assert runs.read_config(folders[1])["config"]["prior"]["workdir"] == str(folders[0])
