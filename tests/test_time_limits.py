"""A limit of the time of one run is no limit of what is built on it: the quickstart's runs have one."""

import json

import pytest

from experiments.configs import finetune, latent_prior, noisy_classifier
from experiments.regressor_run import config_of
from experiments.runs import open_run
from tests import posed_run, small_run


def limited(workdir):
    """The same folder, its run told to end after five minutes."""
    path = workdir / "config.json"
    record = json.loads(path.read_text())
    record["config"]["train"]["minutes"] = 5.0
    path.write_text(json.dumps(record))
    return workdir


@pytest.mark.parametrize("recipe", [latent_prior, finetune])
def test_what_begins_with_a_run_has_all_the_time_it_needs(tmp_path, recipe):
    workdir = limited(small_run.write(tmp_path / "run"))
    config = recipe.get_config(str(workdir))
    assert config.train.minutes == 0 and config.train.images >= 100_000


def test_so_has_a_classifier_on_a_ddae(tmp_path):
    config = noisy_classifier.get_config(str(limited(small_run.write_ddae(tmp_path / "run"))))
    assert config.train.minutes == 0 and config.train.images > 0


def test_a_regressor_sees_as_many_images_as_the_run_whatever_time_it_takes(tmp_path):
    run = open_run(limited(posed_run.write(tmp_path / "run")))
    config = config_of(run)
    assert run.config.train.minutes == 5
    assert (config.train.minutes, config.train.images) == (0, 2 * run.config.train.batch)
