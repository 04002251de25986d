"""The table of ablations: every variant is a config that works, and rows say what the runs left."""

import json

import jax
import pytest

from experiments import build, methods
from experiments.benchmarks import ablations
from experiments.benchmarks.ablations import VARIANTS, Trial, trials
from experiments.configs import quickstart


def results(step, shape, psnr):
    """What the mains leave, as far as it is read."""
    label = {"z": {"linear": shape}}
    dci = {"disentanglement": 0.5, "completeness": 0.25, "informativeness": 0.75}
    return {
        f"probe/{step}": {"labels": {"shape": label, "size": {"z": {"linear": 0.5}}}, "dci": {"z": dci}},
        f"novel_views/{step}": {"psnr": psnr, "one_sample": {"psnr": psnr - 1}},
    }


def leave(trial, **figures):
    for name, found in results(trial.step, **figures).items():
        (trial.workdir / name).mkdir(parents=True)
        (trial.workdir / name / "results.json").write_text(json.dumps(found))


def changed(variant):
    """The config that the training main would have."""
    config = quickstart.get_config("masked")
    with config.ignore_type():
        config.update_from_flattened_dict(dict(VARIANTS[variant]))
    return config


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_method_with_views_and_differs_from_the_base(variant):
    config = changed(variant)
    method = methods.method(config, build.batch_spec(config))
    build.views(config)
    abstract = jax.eval_shape(lambda key: method.init(key, build.batch_spec(config)), jax.random.key(0))
    assert "encoder" in abstract["params"]
    assert (config.to_dict() == changed("base").to_dict()) == (variant == "base")


def test_the_command_lines_are_those_of_the_public_mains(tmp_path):
    trial = Trial(variant="same_view", seed=3, minutes=2, workdir=tmp_path)
    train, probe, sample = (stage.command for stage in trial.phases()[0])
    assert train[0] == "experiments.train" and "--config.data.pair=same" in train
    assert "--config=experiments/configs/quickstart.py:masked" in train
    assert "--config.seed=3" in train and f"--config.train.images={2 * 8192}" in train
    assert probe[0] == "experiments.probe" and sample[0] == "experiments.sample"
    assert trial.step == 1024


def test_a_row_is_the_mean_over_seeds_and_how_far_they_lie_from_it(tmp_path):
    done = trials(tmp_path, 2, [0, 1], ["base", "same_view", "cosine"])
    leave(done[0], shape=0.70, psnr=23.0)
    leave(done[3], shape=0.80, psnr=24.0)
    leave(done[1], shape=0.40, psnr=15.0)
    head, _, base, same = ablations.table(done)
    assert head.startswith("| changed | seeds | shape, z (%) | size, z (%) |")
    assert base == (
        "| nothing | 2 | 75.0 ± 5.0 | 50.0 ± 0.0 | 62.5 ± 2.5 | 0.500 ± 0.000 | 0.250 ± 0.000 | 0.750 ± 0.000 "
        "| 23.5 ± 0.5 | 22.5 ± 0.5 |"
    )
    assert same.startswith("| data.pair=same | 1 | 40.0 | 50.0 |")


def test_what_is_through_is_not_run_again(tmp_path, capsys):
    for trial in trials(tmp_path, 2, [0], ["base", "whole"]):
        leave(trial, shape=0.5, psnr=20.0)
    assert ablations.main([f"--out={tmp_path}", "--seeds=0", "--only=base,whole"]) == 0
    assert "| model.grouping=whole | 1 | 50.0 |" in capsys.readouterr().out


def test_a_variant_that_does_not_exist_is_told(capsys):
    with pytest.raises(SystemExit):
        ablations.main(["--out=x", "--only=base,nothing"])
    assert "nothing: expected some of base" in capsys.readouterr().err
