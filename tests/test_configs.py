"""Every config: its text, its parameters, and one step of it in shapes; a change of either is on purpose."""

import importlib
import os
from pathlib import Path

import jax
import pytest

from data.pipeline import Views
from experiments import build, methods, runs
from experiments.configs import soda_imagenet
from experiments.job import initialiser
from soda_jax.training import tables
from soda_jax.training.step import make_step

GOLDEN = Path(__file__).parent / "golden" / "configs"
CONFIGS = ["quickstart", "soda_fashion_mnist", "soda_cifar10", "soda_tiny_imagenet", "soda_imagenet:64"]
CONFIGS += [
    "soda_imagenet:128",
    "latent_prior",
    "soda_views3d",
    "soda_views3d:draws",
    "ddae_fashion_mnist",
    "ddae_cifar10_ddpm",
]
CONFIGS += [f"{name}_fashion_mnist" for name in ("siamese", "simclr", "byol", "vicreg")]
CONFIGS += [
    "repfusion_fashion_mnist",
    "repfusion_cifar10",
    "repfusion_cifar10:paper",
    "ddae_cifar10_ddpm:ddpmpp",
    "ddae_cifar10_edm",
    "ddae_cifar10_edm:ddpmpp",
    "ddae_cifar10_edm_pp_aug",
    "finetune",
    "noisy_classifier",
    "ddae_cifar10_small",
    "ddae_cifar100",
    "ddae_tiny_imagenet",
    "ddae_cifar10_dit",
    "soda_cifar10_dit",
    "ddae_diffusers",
    "dense",
    "ddae_dit_latents",
    "ddae_adm",
]
RENEW = "If that is on purpose: UPDATE_GOLDEN=1 python -m pytest tests/test_configs.py, and read the diff."


def config_of(name):
    """The config of "file" or "file:argument"."""
    module, *argument = name.split(":")
    return importlib.import_module(f"experiments.configs.{module}").get_config(*argument)


def abstract_state(config):
    """Method, TrainState and batch of a config, in shapes; its mesh is not asked for."""
    spec = build.batch_spec(config)
    method = methods.method(config, spec)
    return method, jax.eval_shape(initialiser(config, method, spec)), spec


@pytest.mark.parametrize("name", CONFIGS)
def test_config_and_parameters_are_those_of_the_golden_text(name):
    config = config_of(name)
    lines = [f"{key} = {value!r}" for key, value in sorted(runs.flat(config.to_dict()))]
    state = abstract_state(config)[1]
    text = "\n".join([*lines, "", tables.parameter_table(state.params)]) + "\n"
    path = GOLDEN / f"{name.replace(':', '_')}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), RENEW


@pytest.mark.parametrize("name", CONFIGS)
def test_one_step_keeps_the_shapes_of_the_state(name):
    config = config_of(name)
    method, state, spec = abstract_state(config)
    step = make_step(method, build.optimizer(config), build.ema(config), 1, config.seed)
    after, metrics = jax.eval_shape(step, state, spec)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_views_and_lengths_are_legal(name):
    config = config_of(name)
    assert isinstance(build.views(config), Views)
    assert build.lengths(config).steps > 0


def test_imagenet_has_targets_of_64_or_128_pixels():
    with pytest.raises(ValueError, match="64 or 128"):
        soda_imagenet.get_config("96")


def test_every_config_file_is_tested_and_has_its_command():
    folder = Path(runs.__file__).parent / "configs"
    files = {path.stem: path.read_text() for path in folder.glob("*.py")}
    named = {name.partition(":")[0] for name in CONFIGS}
    assert named == files.keys() - {"__init__", "default", "other_methods"}
    assert all("python -m experiments." in files[name] and "`assumed`" in files[name] for name in named)


def test_the_quickstart_with_masks_differs_in_them_in_what_z_is_made_of_in_who_paints_and_in_what_is_seen():
    plain, masked = (
        dict(runs.flat(config_of(name).to_dict())) for name in ("quickstart", "quickstart:masked")
    )
    assert {key for key in plain if plain[key] != masked[key]} == {
        "data.zoom",
        "data.source_size",
        "model.encoder",
        "model.mask_section",
        "model.mask_all",
        "model.pooled_norm",
        "model.ray_frame",
        "model.channels",
        "model.multipliers",
        "model.attention",
        "model.latent_dim",
        "optimizer.learning_rate",
        "optimizer.name",
        "optimizer.momentum",
        "optimizer.nesterov",
        "optimizer.orthogonal",
    }
    with pytest.raises(ValueError, match=r"expected quickstart\.py, or quickstart\.py:masked"):
        config_of("quickstart:mask")
    with pytest.raises(ValueError, match=r"expected soda_views3d\.py, or soda_views3d\.py:draws"):
        config_of("soda_views3d:draw")
