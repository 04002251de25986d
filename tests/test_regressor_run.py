"""The regressor that a run is compared with: whose it may be, and how it is trained."""

import dataclasses

import pytest

from experiments import regressor_run
from experiments.regressor_run import check_comparable, config_of, regressor_of
from experiments.runs import open_run
from tests import posed_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of SODA at step 2."""
    return open_run(posed_run.write(tmp_path_factory.mktemp("run")))


def changed(run, changes, **fields):
    """The regressor of this run with other keys."""
    config = config_of(run)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return dataclasses.replace(run, config=config, **fields)


def test_it_has_the_config_of_the_run_and_as_many_images(run):
    config = config_of(run)
    assert (config.method, config.train.images) == ("regressor", 2 * run.config.train.batch)
    assert config.model == run.config.model and config.data == run.config.data
    assert run.config.method == "soda"


def test_what_is_not_its_size_may_differ(run):
    own = {"data.threads": 7, "data.dir": "x", "model.mask_all": 0.0, "model.dropout": 0.5}
    check_comparable(run, changed(run, own | {"optimizer.learning_rate": 0.5, "seed": 3}))


@pytest.mark.parametrize(
    ("changes", "fields", "words"),
    [
        ({"method": "soda"}, {}, r"is a run of config\.method='soda', expected one of 'regressor'"),
        ({"model.channels": 8}, {}, r"other data or sizes .*\(model\.channels: 4 -> 8\)"),
        ({"data.image_size": 8, "data.pair": "augment"}, {}, r"data\.image_size: 16 -> 8; data\.pair: pose"),
        ({}, {"data_info": {"manifest": "other"}}, r"\(files of data set posed\)"),
        ({}, {"step": None}, r"has no checkpoint yet: train it first, or .*--regressor=none"),
    ],
)
def test_another_run_is_refused_with_its_keys(run, changes, fields, words):
    with pytest.raises(ValueError, match=words) as error:
        check_comparable(run, changed(run, changes, **fields))
    assert str(error.value).startswith(f"--regressor={run.workdir}") and "\n" not in str(error.value)


def test_a_folder_without_a_run_is_named_and_none_leaves_it_out(run, tmp_path):
    with pytest.raises(ValueError, match=rf"--regressor={tmp_path}: .*expected a run"):
        regressor_of(run, str(tmp_path))
    assert regressor_of(run, "none") is None
    assert not (run.workdir / "regressor").exists()


def test_one_that_has_seen_enough_is_not_trained_again(run, capsys):
    posed_run.write(run.workdir / "regressor", steps=(2,), changes={"method": "regressor"})
    assert regressor_of(run, None).step == 2
    assert regressor_run.trained(run) == run.workdir / "regressor"
    assert "training" not in capsys.readouterr().out
