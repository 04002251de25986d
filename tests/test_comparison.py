"""The one table: every entry is a config that works on both data sets, and rows say what the runs left."""

import ast
import importlib
import json
import subprocess
import sys

import jax
import pytest

from data.builders import store, views3d
from experiments import build, methods
from experiments.benchmarks import comparison
from experiments.benchmarks.comparison import ENTRIES, SODA, Trial
from experiments.benchmarks.trials import spent, watched
from experiments.job import check_classes


def trial(out, method, data="fashion_mnist", seed=0):
    return Trial(data=data, method=method, seed=seed, minutes=0.1, out=out)


def config_of(one):
    """The config that the training main would have of its command line."""
    _, place, _, *changes = one.training()
    name, _, argument = place.removeprefix("--config=experiments/configs/").partition(":")
    module = importlib.import_module(f"experiments.configs.{name.removesuffix('.py')}")
    known = [argument] if argument == "masked" else []  # a teacher's workdir is not there
    config = module.get_config(*known)
    with config.ignore_type():
        for change in changes:
            key, value = change.removeprefix("--config.").split("=", 1)
            config.update_from_flattened_dict({key: plain(value)})
    return config, argument


def plain(text):
    """A number or a tuple, else the text."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


@pytest.mark.parametrize("data", SODA)
@pytest.mark.parametrize("method", ENTRIES)
def test_every_entry_is_a_method_on_both_data_sets(tmp_path, method, data):
    config, argument = config_of(trial(tmp_path, method, data))
    assert config.method == method.partition("_")[0] and config.data.name == data
    spec = build.batch_spec(config)
    build.views(config)
    made = methods.method(config, spec)
    abstract = jax.eval_shape(lambda key: made.init(key, spec), jax.random.key(0))
    assert "params" in abstract
    assert ("repfusion" in method) == (argument == str(tmp_path / f"{data}_ddae_0"))
    assert (config.model.mask_section == 0.1) or method not in ("soda", "autoencoder")


def test_methods_that_see_labels_see_those_of_views3d(tmp_path):
    store.write(views3d.recipe(views3d.Plan(train=2, test=1, views=2)), tmp_path)
    for method in ("supervised", "repfusion", "repfusion_uniform"):
        config, _ = config_of(trial(tmp_path, method, "views3d"))
        config.data.dir = str(tmp_path)
        check_classes(config, build.dataset(config))


@pytest.mark.parametrize("data", SODA)
def test_all_but_the_diffusion_net_train_the_same_encoder(tmp_path, data):
    keys = ("encoder", "encoder_width", "stem", "residual_gain")
    found = {
        method: [config_of(trial(tmp_path, method, data))[0].model[key] for key in keys]
        for method in ENTRIES
        if method != "ddae"
    }
    assert all(found[method] == found["soda"] for method in found)


def wrote(folder, found):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found))


def begun(one, batch=16):
    """A run of which the config is there."""
    one.workdir.mkdir(parents=True)
    (one.workdir / "config.json").write_text(json.dumps({"config": {"train": {"batch": batch}}}))


def through(one, linear, tuned):
    """What the mains leave, as far as it is read."""
    begun(one)
    score = {"linear": linear, "knn": linear - 0.1}
    label = {
        "z": score,
        "pooled": score,
        "untrained": {"linear": 0.3, "knn": 0.2},
        "pixels": {"linear": 0.4, "knn": 0.5},
    }
    wrote(one.workdir / "probe" / str(one.step), {"labels": {"label": label}})
    (one.workdir / "cpu_seconds.json").write_text("630")
    for name in one.tunings:
        wrote(
            one.workdir / "finetune" / str(one.step) / name, {"test": tuned - 0.2 * name.endswith("scratch")}
        )


def test_a_diffusion_net_is_probed_and_tuned_where_its_grid_found_the_best_place(tmp_path):
    one = trial(tmp_path, "ddae")
    begun(one)
    wrote(one.workdir / "probe_grid" / str(one.step), {"chosen": {"layer": "out_2", "noise": 21}})
    train, grid, rest = one.phases()
    assert train[0].command[0] == "experiments.train" and "--grid" in grid[0].command
    place = {"--config.ddae.tap=out_2", "--config.ddae.level=21"}
    assert [stage.command[0] for stage in rest] == ["experiments.probe", *2 * ["experiments.finetune"]]
    assert all(place < set(stage.command) for stage in rest)


def test_other_methods_have_no_grid_and_soda_starts_from_scratch_as_well(tmp_path):
    one = trial(tmp_path, "soda", seed=3)
    begun(one)
    train, rest = one.phases()
    assert f"--config.train.images={one.images}" in train[0].command and "--config.seed=3" in train[0].command
    assert sum("--start=scratch" in stage.command for stage in rest) == 2
    assert not any("ddae" in word for stage in rest for word in stage.command)


def test_a_row_is_a_mean_over_seeds(tmp_path):
    done = [trial(tmp_path, method, seed=seed) for seed in (0, 1) for method in ("soda", "repfusion", "byol")]
    through(done[0], linear=0.80, tuned=0.7)
    through(done[3], linear=0.90, tuned=0.8)
    through(done[1], linear=0.50, tuned=0.6)
    head, _, soda, fusion, untrained, pixels = comparison.table(done)
    assert head == "| method | images | CPU min | label | k-NN | 1% | 10% |"
    z, nearest, tuned = "85.0 ± 5.0", "75.0 ± 5.0", "75.0 ± 5.0"
    assert (
        soda
        == f"| soda | {done[0].images:,} | 10.5 ± 0.0 | {z} / {z} | {nearest} / {nearest} | {tuned} | {tuned} |"
    )
    assert fusion == f"| repfusion | {done[1].images:,} | 10.5 | 50.0 | 40.0 | 60.0 | 60.0 |"
    scratch = "55.0 ± 5.0"
    assert untrained == f"| untrained, from scratch | | | 30.0 ± 0.0 | 20.0 ± 0.0 | {scratch} | {scratch} |"
    assert pixels == "| pixels | | | 40.0 ± 0.0 | 50.0 ± 0.0 |  |  |"


def test_what_is_through_is_not_run_again_and_the_table_is_printed(tmp_path, capsys):
    through(
        Trial(data="fashion_mnist", method="byol", seed=0, minutes=10, out=tmp_path), linear=0.5, tuned=0.5
    )
    assert comparison.main([f"--out={tmp_path}", "--seeds=0", "--only=byol"]) == 0
    assert "| byol | " in capsys.readouterr().out


def test_the_seconds_of_a_training_add_up_and_those_of_a_probe_do_not_count(tmp_path):
    spin = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"]
    start = watched(tmp_path, lambda command: subprocess.run(spin, check=True).returncode)
    assert start(["experiments.train"]) == 0
    first = spent(tmp_path)
    assert first >= 0.2
    start(["experiments.probe"])
    assert spent(tmp_path) == first
    start(["experiments.train"])
    assert spent(tmp_path) >= first + 0.2


def test_a_method_that_does_not_exist_is_told(capsys):
    with pytest.raises(SystemExit):
        comparison.main(["--out=x", "--only=soda,nothing"])
    assert "nothing: expected some of soda" in capsys.readouterr().err
