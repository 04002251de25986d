"""Fine-tuning: what it begins with, what it trains on, that it stops and goes on, and what it measures."""

import json

import jax
import numpy as np
import pytest

from experiments import build, finetune, probe, train
from experiments.configs import finetune as recipe
from experiments.frozen import frozen
from experiments.job import prepare
from experiments.runs import open_run
from soda_jax.training import checkpoints
from soda_jax.training.signals import StopRequest
from tests import small_job
from tests.small_config import BATCH, STEPS
from tests.test_methods_trained import METHODS, QUIET

TUNED = 9  # steps
ORIGINS = {"soda": {}, "ddae": {"method": "ddae", **METHODS["ddae"], "samples.every_images": 0}}
LENGTHS = {"train.batch": BATCH, "train.images": TUNED * BATCH, "checkpoint.every_images": 4 * BATCH}
SHORT = {**LENGTHS, "optimizer.warmup_images": 2 * BATCH, "train.log_every_images": 3 * BATCH}


@pytest.fixture(scope="module", params=["soda", pytest.param("ddae", marks=pytest.mark.rare)])
def origin(request, tmp_path_factory):
    """The workdir of a trained run."""
    workdir = tmp_path_factory.mktemp(request.param)
    small_job.run(workdir, {**QUIET, **ORIGINS[request.param]})
    return workdir


def job_of(workdir, folder, **changes):
    """The job of a short fine-tuning of this run."""
    config = recipe.get_config(str(workdir))
    with config.unlocked():
        config.update_from_flattened_dict({**SHORT, **changes})
    return prepare(config, folder)


def states(folder, step=TUNED):
    return checkpoints.load_as_saved(folder / "checkpoints", step)


def test_it_stops_and_goes_on_bit_for_bit_from_the_averaged_encoder(origin, tmp_path):
    job = job_of(origin, tmp_path / "unbroken", **{"finetune.fraction": 0.5})
    assert len(job.dataset.split("train")) < 23
    assert train.run(job, StopRequest(), print).kind == "finished"
    again = job_of(origin, tmp_path / "broken", **{"finetune.fraction": 0.5})
    for steps in (4, 3):
        assert train.run(again, small_job.StopAt(steps), print).kind == "stopped"
    assert train.run(again, StopRequest(), print).kind == "finished"
    ours, theirs = states(tmp_path / "unbroken"), states(tmp_path / "broken")
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)
    about = json.loads((tmp_path / "broken" / "finetune.json").read_text())
    assert (about["workdir"], about["step"]) == (str(origin), STEPS)


def test_before_the_first_step_it_is_the_averaged_encoder_unless_it_is_from_scratch(origin, tmp_path):
    """With a rate of (nearly) nothing the parameters stay what they began with."""
    still = {"optimizer.learning_rate": 1e-30, "train.images": BATCH}
    run = open_run(origin, overrides={"ddae.draws": 0})
    expected = dict(jax.tree.leaves_with_path(frozen(run).variables["params"]))
    for start, alike in (("trained", True), ("scratch", False)):
        folder = tmp_path / start
        train.run(job_of(origin, folder, **still, **{"finetune.start": start}), StopRequest(), print)
        tuned = open_run(folder)
        state = tuned.ema_variables()["params"]["encoder"]
        found = dict(jax.tree.leaves_with_path(state))
        assert found.keys() == expected.keys()
        kernels = [path for path in found if path[-1].key == "kernel"]
        same = [np.array_equal(found[path], expected[path]) for path in kernels]
        assert all(same) if alike else not any(same)
        assert (folder / "finetune.json").is_file() == alike


def test_the_job_measures_what_it_trained(origin, capfd):
    """Through the mains: a folder by what was asked for, accuracies that are those of the answers, done once."""
    changes = [f"--config.{key}={value}" for key, value in SHORT.items() if key != "train.images"]
    arguments = [f"--workdir={origin}", "--shots=2", f"--images={TUNED * BATCH}", *changes]
    assert finetune.main(arguments) == 0
    folder = origin / "finetune" / str(STEPS)
    found = json.loads((folder / "results.json").read_text())
    assert found == json.loads((folder / "shots_2" / "results.json").read_text())
    assert found["sizes"] == {"train": 10, "test": 11} and found["fraction"] == pytest.approx(10 / 23)
    tuned = open_run(folder / "shots_2")
    source = build.dataset(tuned.config).split("test")
    examples = source.read(range(11))
    table = probe.tables(probe.prepare(tuned), finetune.extractor(tuned), tuned.ema_variables())
    right = table.test.features["answers"][:, 0] == [example["labels"]["label"] for example in examples]
    assert found["test"] == found["labels"]["label"]["test"] == pytest.approx(np.mean(right))
    assert finetune.main(arguments) == 0
    said = capfd.readouterr().out
    assert "nothing to do: trained for" in said and "the test split has answered already" in said
    assert json.loads((folder / "results.json").read_text()) == found


def test_what_was_tuned_can_be_probed(origin):
    """Which is how its features are compared with those before."""
    folder = origin / "finetune" / str(STEPS) / "shots_2"
    short = ("--config.probe.images=200", "--config.probe.knn_k=2", "--config.probe.batch=8")
    assert probe.main([f"--workdir={folder}", *short]) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune.workdir": ""}, r"finetune\.workdir='' must name a trained run"),
        (
            {"model.encoder_width": 4, "model.channels": 16},
            r"the config is not that of the run in finetune\.workdir",
        ),
        ({"finetune.layer_decay": 0.0}, r"finetune\.layer_decay must be above 0"),
        ({"finetune.start": "here"}, r"finetune\.start='here' is unknown"),
        (
            {"finetune.method": "latent_prior"},
            r"finetune\.method='latent_prior': its encoder is that of another run",
        ),
        ({"finetune.fraction": 0.0}, r"finetune\.fraction must be above 0"),
    ],
)
def test_what_does_not_fit_is_told_before_training(origin, changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        train.run(job_of(origin, tmp_path / "tuned", **changes), StopRequest(), print)
    assert not list((tmp_path / "tuned").glob("checkpoints/[0-9]*"))


def test_a_run_without_a_checkpoint_and_flags_that_are_none(tmp_path, capsys):
    small_job.job(tmp_path)
    assert finetune.main([f"--workdir={tmp_path}"]) == 1
    assert "config.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        finetune.main([f"--workdir={tmp_path}", "--fractoin=0.1"])
    assert "unexpected arguments: --fractoin=0.1" in capsys.readouterr().err
