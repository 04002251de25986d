"""Which images are probed, which keys the command line may set, and what is said when something is wrong."""

import dataclasses

import numpy as np
import pytest

from experiments import probe
from experiments.probe import parse
from experiments.probing import Job, batches, chosen_images, prepare, settings_hash, settings_of
from experiments.runs import open_run
from tests import small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run.write(tmp_path_factory.mktemp("settings") / "run", steps=(2,))


@pytest.fixture(scope="module")
def job(workdir) -> Job:
    return prepare(open_run(workdir))


def changed(workdir, **keys) -> Job:
    return prepare(open_run(workdir, None, {f"probe.{name}": value for name, value in keys.items()}))


def test_all_images_of_both_splits_by_default(job):
    assert chosen_images(job, "train", 0).tolist() == list(range(24 * 4))
    assert chosen_images(job, "test", 1000).tolist() == list(range(10 * 4))


def test_a_limit_draws_the_same_images_every_time(workdir, job):
    some = chosen_images(job, "train", 20)
    assert len(set(some)) == 20 and some.max() < 96 and sorted(some) == some.tolist()
    np.testing.assert_array_equal(some, chosen_images(job, "train", 20))
    assert chosen_images(changed(workdir, seed=1), "train", 20).tolist() != some.tolist()


def test_images_are_plain_unless_augmentation_is_asked_for(workdir):
    job = prepare(open_run(workdir, None, {"data.pair": "pose_augment"}))
    images = chosen_images(job, "train", 12)
    plain, again, altered = (
        np.concatenate([b["image"] for b in batches(job, "train", images, augment)])
        for augment in (False, False, True)
    )
    np.testing.assert_array_equal(plain, again)
    assert plain.shape == altered.shape and not np.array_equal(plain, altered)


def test_progress_is_said_where_there_is_no_terminal(job, monkeypatch):
    said = []
    loud = dataclasses.replace(job, say=said.append)
    monkeypatch.setattr("experiments.probing.LINE_EVERY", -1.0)
    assert len(list(batches(loud, "test", np.arange(40)))) == 4
    assert said == [f"  encoding test: {i} of 4 batches" for i in range(4)]


def test_the_hash_knows_what_matters(workdir, job):
    assert settings_hash(job) == settings_hash(prepare(open_run(workdir)))
    assert settings_hash(changed(workdir, knn_k=4)) != settings_hash(job)
    moved = prepare(open_run(workdir, None, {"data.threads": 5}))
    assert settings_hash(moved) == settings_hash(job)


def test_the_command_line_sets_probe_keys_and_the_place_of_the_data():
    argv = ["probe", "--workdir=w", "--config.probe.knn_k=3", "--config.probe.learning_rates=(0.5,)"]
    values, overrides = parse([*argv, "--config.data.dir=/d", "--step", "7"])
    assert overrides == {"probe.knn_k": 3, "probe.learning_rates": (0.5,), "data.dir": "/d"}
    assert values["step"].value == 7 and not values["follow"].value


def test_overrides_reach_the_run(workdir):
    run = open_run(workdir, None, {"probe.knn_k": 3})
    assert run.config.probe.knn_k == 3 and settings_of(run.config).knn_k == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--workdir=DIR is missing"),
        (["--workdir=/nowhere/at/all"], "experiments.train"),
        (["--workdir=RUN", "--step=3"], "--step=3"),
        (["--workdir=RUN", "--step=2", "--follow"], "exclude each other"),
        (["--workdir=RUN", "--config.probe.knn=3"], "knn_k"),
        (["--workdir=RUN", "--config.train.batch=3"], "no such key: train"),
        (["--workdir=RUN", "--config.ddae.augment=0.1"], "ddae.tap, ddae.level, ddae.draws and data.dir"),
        (["--workdir=RUN", "--config.ddae.self_condition=middle"], "no such key: self_condition"),
        (["--workdir=RUN", "--config.probe.augment"], "config.data.pair='pose'"),
        (["--workdir=RUN", "--stap=3"], "step"),
        (["--workdir=RUN", "also"], "unexpected arguments: also"),
        (["--workdir=RUN", "--config.probe.knn_k=0"], "config.probe.knn_k"),
        (["--workdir=RUN", "--config.probe.knn_k=1000"], "config.probe.knn_k"),
        (["--workdir=RUN", "--config.probe.holdout=2.0"], "config.probe.holdout"),
        (["--workdir=RUN", "--config.probe.max_test=-1"], "config.probe.max_test"),
        (["--workdir=RUN", "--config.probe.batch=0"], "config.probe.batch"),
        (["--workdir=RUN", "--config.data.dir=/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(workdir, capsys, arguments, words):
    assert probe.main([argument.replace("RUN", str(workdir)) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1


def test_a_run_without_checkpoints_is_named(tmp_path, capsys):
    run = small_run.write(tmp_path / "run", steps=())
    assert probe.main([f"--workdir={run}"]) == 1
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_data_without_labels_can_not_be_probed(tmp_path, capsys):
    small_run.dataset("unnamed", labelled=False)
    run = small_run.write(tmp_path / "run", steps=(2,), name="unnamed", labelled=False)
    assert probe.main([f"--workdir={run}"]) == 1
    assert "'unnamed' has no labels" in capsys.readouterr().err


def test_help_shows_the_flags(capsys):
    assert probe.main(["--help"]) == 0
    assert "--workdir" in (printed := capsys.readouterr().out) and "--follow" in printed
