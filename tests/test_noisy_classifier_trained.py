"""Classes through noise: that both kinds of net learn them, through the mains, and how that is told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, noisy_classifier, report
from experiments.configs import noisy_classifier as recipe
from experiments.runs import open_run
from soda_jax.methods.base import FROZEN
from soda_jax.training.optimizer import Ema, OptimizerConfig, make_optimizer
from soda_jax.training.state import create
from soda_jax.training.step import make_step
from tests import small_run, tiny
from tests.test_noisy_classifier import classifier


def striped(size, seed):
    """Two classes, brighter or darker, of stripes up or across: both kinds of net can tell them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, size)
    line = np.tile([40, 200], 4)
    up = np.broadcast_to(line, (8, 8))
    images = np.where(y[:, None, None] == 1, up[None] + 55, up.T[None])[..., None] - rng.integers(
        0, 30, (size, 8, 8, 1)
    )
    images = np.clip(images, 0, 255)
    return {"source": jnp.asarray(images, jnp.uint8), "labels": jnp.asarray(y[:, None], jnp.int32)}


@pytest.mark.parametrize("name", ["head", "wrn"])
def test_it_learns_what_little_noise_shows_and_much_noise_hides(name):
    """Near certainty at the least noise, chance at the most, where nothing is left of the image."""
    method = classifier(wrn=name == "wrn")
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=1e-2, weight_decay=0.0, total_images=10**6, batch=64)
    )
    batch = striped(64, 0)
    state = jax.jit(lambda key: create(method, optimizer, key, tiny.spec(batch)))(jax.random.key(0))
    kept = jax.device_get(state.batch_stats)
    step = jax.jit(make_step(method, optimizer, Ema(decay=0.0), 1, 0))
    for i in range(80):
        state, _ = step(state, striped(64, i))
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get(state.batch_stats))
    test, variables = striped(400, 999), {"params": state.params, "batch_stats": state.batch_stats}
    ask = jax.jit(method.answers)
    right = {
        n: float(np.mean(ask(variables, test["source"], jnp.int32(n))["answers"] == test["labels"]))
        for n in (1, 1000)
    }
    assert right[1] > 0.95 and abs(right[1000] - 0.5) < 0.1, right


# Through the mains ------------------------------------------------------------------------------------------

SHORT = ("--images=96", "--config.train.batch=24", "--config.optimizer.hold_images=24")
WIDE = ("--backbone=wrn", "--depth=10", "--width=1", "--config.optimizer.warmup_images=24")


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A run of DDAE, read at its second tap, and held against a wide ResNet."""
    workdir = small_run.write_ddae(tmp_path_factory.mktemp("noisy") / "run")
    assert noisy_classifier.main([f"--workdir={workdir}", *SHORT]) == 0
    assert noisy_classifier.main([f"--workdir={workdir}", *SHORT, *WIDE]) == 0
    return workdir


def results(workdir):
    return json.loads((workdir / "noisy_classifier" / "4" / "results.json").read_text())


def test_results_hold_both_backbones_at_the_levels_of_the_paper(classified):
    found = results(classified)
    assert list(found) == ["ddae", "wrn"]
    for block in found.values():
        assert block["levels"] == [*range(1, 952, 50)]
        assert len(block["test"]) == 20 and all(0 <= value <= 1 for value in block["test"])
        assert block["sizes"] == {"train": 24, "test": 40} and block["images"] == 96
        hues, bright = (block["labels"][name] for name in ("hue", "bright"))
        np.testing.assert_allclose(np.mean([hues["test"], bright["test"]], axis=0), block["test"])
        assert all(
            low <= value <= high for value, (low, high) in zip(hues["test"], hues["test_ci95"], strict=True)
        )
    np.testing.assert_allclose(found["ddae"]["sigma"][0], 0.01, rtol=1e-2)
    assert found["ddae"]["sigma"] == sorted(found["ddae"]["sigma"])


def test_the_net_that_is_read_is_the_runs_and_stays_what_it_is(classified):
    """Bit for bit, after training; of a wide ResNet there is none."""
    folder = classified / "noisy_classifier" / "4"
    expected = open_run(classified).ema_variables()["params"]
    tuned = open_run(folder / "ddae").ema_variables()
    jax.tree.map(np.testing.assert_array_equal, tuned["batch_stats"][FROZEN]["ddae"], expected)
    assert json.loads((folder / "ddae" / "noisy_classifier.json").read_text())["step"] == 4
    assert not (folder / "wrn" / "noisy_classifier.json").exists()
    assert FROZEN not in open_run(folder / "wrn").ema_variables()["batch_stats"]


def test_what_was_answered_is_not_asked_again_and_the_page_shows_both(classified, capfd):
    before = results(classified)
    assert noisy_classifier.main([f"--workdir={classified}", *SHORT]) == 0
    said = capfd.readouterr().out
    assert "nothing to do: trained for" in said and "the test split has answered already" in said
    assert results(classified) == before
    assert report.main([f"--workdir={classified}"]) == 0
    page = (classified / "report.html").read_text()
    assert "What is known of classes through noise" in page and "a wide ResNet from scratch" in page


def test_one_level_alone_is_answered_as_among_the_others(classified):
    """By a program of its own."""
    folder = classified / "noisy_classifier" / "4" / "ddae"
    run = open_run(folder)
    table = noisy_classifier.asked(run, build.dataset(run.config), extractor(run), run.ema_variables(), 201)
    value, (low, high) = noisy_classifier.accuracy(table, list(table.labels).index("hue"), "hue")
    assert value == pytest.approx(results(classified)["ddae"]["labels"]["hue"]["test"][4])
    assert low <= value <= high and len(table) == 40


def extractor(run):
    return noisy_classifier.Extractor(
        lambda told, images: run.method.answers(told["variables"], images, told["level"]), ("answers",)
    )


# Words and lengths ------------------------------------------------------------------------------------------


def test_the_recipe_is_that_of_the_code(classified):
    """Epochs are of the run's training split: 24 examples."""
    adam, sgd = (recipe.get_config(f"{classified}@4{backbone}") for backbone in ("", ",wrn"))
    assert (adam.optimizer.name, adam.optimizer.learning_rate, adam.train.images) == ("adamw", 4e-3, 15 * 24)
    assert (sgd.optimizer.name, sgd.optimizer.learning_rate, sgd.train.images) == ("sgd", 0.1, 200 * 24)
    assert (sgd.optimizer.momentum, sgd.optimizer.weight_decay, sgd.optimizer.decay) == (0.9, 5e-4, "l2")
    assert sgd.optimizer.warmup_images == 5 * 24
    assert adam.optimizer.hold_images == sgd.optimizer.hold_images == 24
    assert adam.ddae.tap == "out_2" and adam.supervised.classes == (2, 3)


def test_a_net_that_does_not_fit_is_told_before_training(classified, tmp_path, capfd):
    other = small_run.write_ddae(tmp_path / "run")
    assert noisy_classifier.main([f"--workdir={other}", *SHORT, "--config.model.channels=16"]) != 0
    assert "the config is not that of the run in noisy_classifier.workdir" in capfd.readouterr().err
    assert not list(other.glob("noisy_classifier/4/ddae/checkpoints/[0-9]*"))


def test_runs_of_other_methods_have_no_net_to_read(tmp_path, capsys):
    run = small_run.write(tmp_path / "soda", steps=(4,))
    assert noisy_classifier.main([f"--workdir={run}"]) == 1
    assert "must be a run of config.method='ddae', found 'soda'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected the backbone ddae or wrn, found 'vit'"):
        recipe.get_config(f"{run},vit")
