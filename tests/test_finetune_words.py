"""Fine-tuning without training: the folder that a command gets, its config, and what is said at the end."""

import pytest

from experiments import build, finetune, methods
from experiments.configs import default
from experiments.configs import finetune as recipe
from soda_jax.methods.supervised import Supervised


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "fraction_1"),
        (["--fraction=0.01"], "fraction_0.01"),
        (["--fraction=1.0"], "fraction_1"),
        (["--shots=25"], "shots_25"),
        (["--shots=5", "--start=scratch"], "shots_5_scratch"),
        (["--fraction=0.1", "--start=trained"], "fraction_0.1"),
    ],
)
def test_the_folder_is_named_by_what_was_asked_for(flags, name):
    arguments = finetune._parser().parse_args(["--workdir=runs/x", *flags])
    assert finetune.name_of(arguments) == name


def test_what_is_said_at_the_end():
    found = {
        "fraction": 0.01,
        "start": "trained",
        "images": 100_000,
        "sizes": {"train": 600, "test": 10_000},
        "labels": {"label": {"test": 0.8123, "test_ci95": [0.8, 0.8251]}},
    }
    assert finetune.text(found) == (
        "fine-tuned on 600 labelled examples (1.00%), 100,000 images seen; test accuracy in % [95% interval] of "
        "10,000 images\n  label: 81.2 [80.0, 82.5]"
    )
    assert finetune.text({**found, "start": "scratch"}).startswith("from scratch on 600")


def config_of(**changes):
    config = recipe.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def method_of(config):
    return methods.method(config, build.batch_spec(config))


def test_the_networks_are_those_of_the_run():
    """The quickstart's encoder; its pooled features, or z."""
    pooled, z = (method_of(config_of(**{"finetune.feature": name})) for name in ("pooled", "z"))
    assert isinstance(pooled, Supervised) and pooled.encoder == z.encoder
    assert (pooled.feature, z.feature) == ("pooled", "z")
    assert pooled.encoder.latent_dim == recipe.get_config().model.latent_dim


def test_of_a_ddae_it_is_the_net_up_to_the_tap():
    schedule = {
        "diffusion.framework": "edm",
        "diffusion.schedule": "edm",
        "diffusion.steps": 18,
        "data.image_size": 48,
    }
    tuned = method_of(
        config_of(**{"finetune.method": "ddae", "ddae.tap": "out_2", "ddae.level": 4, **schedule})
    )
    assert (tuned.encoder.tap, tuned.feature) == ("out_2", "z")
    assert tuned.encoder.channels == recipe.get_config().model.channels
    assert tuned.encoder.dropout == recipe.get_config().model.dropout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune.start": "here"}, r"finetune\.start='here' is unknown"),
        ({"finetune.feature": "h"}, r"finetune\.feature='h' is unknown"),
        ({"finetune.method": "mae"}, r"finetune\.method='mae' is unknown"),
        ({"finetune.method": "latent_prior"}, r"its encoder is that of another run"),
        ({"model.source_rays": True, "model.ray_frame": "source"}, r"sees rays beside its images"),
    ],
)
def test_what_it_cannot_begin_with_is_told(changes, words):
    with pytest.raises(ValueError, match=words):
        method_of(config_of(**changes))


def test_lower_layers_have_lower_rates_only_where_it_is_fine_tuned(monkeypatch):
    """What the optimiser is given: a rate of each layer, or none."""
    given = []
    monkeypatch.setattr(build, "make_optimizer", lambda config, rates=None: given.append(rates))
    build.optimizer(default.get_config())
    build.optimizer(config_of(**{"finetune.layer_decay": 0.5}))
    nothing, rates = given
    assert nothing is None
    assert rates["encoder/stage4_block1"] == 0.5 and rates["encoder/stage3_block1"] == 0.25
    assert min(rates, key=rates.get) == "encoder/stem" and "encoder/head" not in rates


def test_a_run_without_a_checkpoint_is_no_origin(tmp_path):
    with pytest.raises(ValueError, match="has no checkpoint yet: train it first"):
        recipe.newest(tmp_path)
