"""RepFusion's recipe: the configs' variants, what the teacher is shown, and what the log has of the choice of times."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, methods, runs
from experiments.configs import ddae_cifar10_ddpm, repfusion_cifar10
from soda_jax.methods.base import FROZEN, to_float
from soda_jax.methods.repfusion import imagenet_scaled
from soda_jax.methods.time_choice import BINS
from soda_jax.training.optimizer import learning_rate
from tests import tiny

EPOCH = 50_000 / 128  # updates


@pytest.fixture(scope="module")
def colour():
    """A method of RGB images, its batch and its variables."""
    teacher = tiny.ddae(net={"dropout": 0.0, "out_channels": 3}, tap="middle/branch", draws=0)
    method = dataclasses.replace(tiny.repfusion("fixed"), teacher=teacher, teacher_shape=(16, 16, 3))
    batch = tiny.batch(channels=3)
    batch = {**batch, "source": batch["source"].repeat(2, axis=1).repeat(2, axis=2)}
    init = jax.jit(lambda key: method.init(key, tiny.spec(batch)))
    return method, batch, init(jax.random.key(0))


def test_the_teacher_may_be_shown_images_as_classifiers_see_imagenet(colour):
    method, batch, variables = colour
    images, action = to_float(batch["source"]), jnp.full(16, 6)
    quirk = dataclasses.replace(method, input="imagenet")
    found = quirk.teacher_map(variables["batch_stats"], images, action)
    scaled = (np.asarray(batch["source"]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = method.teacher_map(variables["batch_stats"], jnp.asarray(scaled, jnp.float32), action)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    plain = method.teacher_map(variables["batch_stats"], images, action)
    assert float(jnp.abs(found - plain).max()) > 0.01
    assert FROZEN in variables["batch_stats"]


def test_the_middle_of_imagenet_is_zero():
    grey = jnp.broadcast_to(jnp.asarray([0.485, 0.456, 0.406])[None, None, None] * 2 - 1, (1, 2, 2, 3))
    np.testing.assert_allclose(imagenet_scaled(grey), 0.0, atol=1e-6)
    np.testing.assert_allclose(imagenet_scaled(grey + 2 * 0.225)[..., 2], 1.0, rtol=1e-5)


def test_grey_images_have_no_scaling_of_imagenet():
    with pytest.raises(ValueError, match=r"repfusion\.input='imagenet' is for data\.channels=3, found 1"):
        tiny.repfusion("fixed", input="imagenet")


def test_the_log_has_the_policy_and_the_head_by_time():
    """Entropy, mean t, the shares of ten ranges of t, the reward, and the head's accuracy in each of them."""
    method, batch = tiny.repfusion("rl"), tiny.large_batch()
    variables = jax.jit(lambda key: method.init(key, tiny.spec(batch)))(jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 16)
    metrics = jax.jit(method.loss)(variables, batch, keys)[1]["metrics"]
    assert {"entropy", "mean_t", "reward", "head_accuracy", "beta"} <= metrics.keys()
    chosen = method.choice.choose(variables["params"], to_float(batch["source"]), keys)
    assert 6.5 < float(metrics["entropy"]) <= np.log(1000) + 1e-4  # fresh: nearly uniform
    shares = np.array([metrics[f"t/{i}"] for i in range(BINS)])
    right = np.array([metrics[f"right/{i}"] for i in range(BINS)])
    assert shares.sum() == pytest.approx(1) and shares.max() < 1
    assert (shares * right).sum() == pytest.approx(float(metrics["head_accuracy"]), abs=1e-6)
    assert chosen.action.shape == (16,) and float(metrics["reward"]) < 0


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("", ("", "fixed")),
        ("paper", ("", "paper")),
        ("runs/ddae", ("runs/ddae", "fixed")),
        ("runs/a,b,paper", ("runs/a,b", "paper")),
        ("paper,fixed", ("paper", "fixed")),
    ],
)
def test_workdir_and_variant_stand_behind_the_colon(argument, expected):
    assert repfusion_cifar10.parsed(argument) == expected


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match=r"expected WORKDIR,fixed or WORKDIR,paper, found 'runs/ddae,new'"):
        repfusion_cifar10.get_config("runs/ddae,new")


def test_the_teacher_has_the_sizes_of_its_run(tmp_path):
    theirs = ddae_cifar10_ddpm.get_config("ddpmpp")
    (tmp_path / "config.json").write_text(json.dumps({"config": runs.plain(theirs)}))
    teacher = repfusion_cifar10.get_config(f"{tmp_path},paper").teacher
    assert (teacher.workdir, teacher.resample, teacher.blocks) == (str(tmp_path), "block", 4)
    assert repfusion_cifar10.get_config("paper").teacher.resample == "conv"


def test_the_rate_and_the_entropy_fall_when_the_paper_says():
    config = repfusion_cifar10.get_config("paper")
    rate = learning_rate(build.optimizer_config(config))
    found = [float(rate(round(epoch * EPOCH))) for epoch in (0, 99, 101, 149, 151, 199)]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)
    choice = methods.method(config, build.batch_spec(config)).choice
    assert (choice.entropy, choice.horizon, choice.actions) == (0.1, round(100 * EPOCH + 0.5), 1000)
    assert not choice.baseline and not build.ema(config).batch_stats


def test_the_variants_differ_in_what_is_mended_alone():
    paper, fixed = (
        runs.plain(repfusion_cifar10.get_config(name)) for name in repfusion_cifar10.VARIANTS[::-1]
    )
    changed = {line.split("=")[0].split(":")[0].strip() for line in runs.differences(paper, fixed)}
    assert changed == {"ema.ramp", "ema.batch_stats", "repfusion.baseline"}


def test_an_unknown_input_is_told_by_key():
    config = repfusion_cifar10.get_config()
    config.repfusion.input = "cifar"
    with pytest.raises(
        ValueError, match=r"repfusion\.input='cifar' is unknown: take one of symmetric, imagenet"
    ):
        methods.method(config, build.batch_spec(config))
