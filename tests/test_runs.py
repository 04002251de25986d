"""A workdir on disk, and the differences between two configs."""

import json
import shlex

import jax
import numpy as np
import pytest

from experiments import build, runs
from experiments.configs import default, soda_imagenet
from tests import small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Checkpoints of steps 2 and 4, whose averages are 1.2 and 1.4 times the initial parameters."""
    return small_run.write(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("config", [default.get_config(), soda_imagenet.get_config("128")])
def test_a_config_survives_json(config):
    again = runs.restored(json.loads(json.dumps(runs.plain(config))))
    assert again.to_dict() == config.to_dict() and again.is_locked
    assert isinstance(again.model.multipliers, tuple)


def test_an_opened_run_has_what_training_wrote(workdir):
    run = runs.open_run(workdir)
    assert run.config.to_dict() == small_run.config("hues").to_dict()
    assert (run.step, run.steps()) == (4, [2, 4])
    assert run.data_info["sizes"] == {"train": 24, "test": 10} and run.data_info["labels"]["hue"] == 3
    assert run.data_info["image_shape"] == [16, 16, 3] and run.data_info["views"] == 4
    assert shlex.split(runs.read_config(workdir)["command"])[0] == "python"


def test_averages_of_each_step_on_one_device(workdir):
    run, last = runs.open_run(workdir, step=2), runs.open_run(workdir).ema_variables()
    initial = run.untrained_variables()
    for found, factor in ((run.ema_variables(), 1.2), (run.ema_variables(4), 1.4), (last, 1.4)):
        jax.tree.map(
            lambda a, b, f=factor: np.testing.assert_allclose(a, f * b, rtol=1e-5),
            found["params"],
            initial["params"],
        )
        assert all(len(x.devices()) == 1 for x in jax.tree.leaves(found))


def test_what_is_missing_is_said(workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a run, found no config.json .* experiments.train"):
        runs.open_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"--step=3: .*checkpoints has \[2, 4\]"):
        runs.open_run(workdir, step=3)
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    run = runs.open_run(tmp_path)
    assert run.step is None and run.steps() == []
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        runs.open_run(tmp_path, step=2)


def changed(**flat):
    """The plain default, and the same with dotted keys changed (`_` for `.` at the first place)."""
    c = default.get_config()
    for key, value in flat.items():
        section, _, name = key.partition("_")
        c[section][name] = value
    return runs.plain(default.get_config()), runs.plain(c)


def test_differences_are_listed_by_key():
    old, new = changed(model_channels=64, data_crop_scale=(0.5, 1.0))
    assert runs.differences(old, new) == [
        "data.crop_scale: [0.08, 1.0] -> [0.5, 1.0]",
        "model.channels: 128 -> 64",
    ]
    assert runs.differences(old, old) == []
    del new["model"]["channels"]
    assert "model.channels: 128 -> (none)" in runs.differences(old, new)


def test_a_run_may_be_longer_or_log_otherwise_but_not_be_another():
    free = dict(train_images=10, train_log_every_images=1, data_threads=9, data_workers=1, data_dir="x")
    free |= dict(data_prefetch=1, checkpoint_keep=9, samples_count=1, monitor_batch=4, probe_seed=3)
    free |= dict(mesh_data=2, mesh_fsdp=4, mesh_smallest=1, mesh_rules=(("qkv", "output"),))
    assert runs.forbidden_differences(*changed(**free, train_allow_config_change=True)) == []
    for key in ("train_batch", "optimizer_clip", "data_image_size"):
        (line,) = runs.forbidden_differences(*changed(**{key: 7}, train_images=10))
        assert line.startswith(key.replace("_", ".", 1))


def test_a_rate_that_falls_towards_the_end_ties_the_length():
    (line,) = runs.forbidden_differences(
        *[c | {"optimizer": {"schedule": "cosine"}} for c in changed(train_images=10)]
    )
    assert line == "train.images: 4000000 -> 10"


def test_config_json_is_whole_or_not_there(workdir, monkeypatch, tmp_path):
    info = runs.data_info(build.dataset(small_run.config("hues")))
    monkeypatch.setattr(runs, "plain", lambda config: {"x": object()})
    with pytest.raises(TypeError):
        runs.write_config(tmp_path, default.get_config(), {}, info)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "config.json is not JSON"), ('{"config": {"seed": 0}}', "does not fit this version of soda_jax")],
)
def test_a_config_json_that_cannot_be_used_is_named(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        runs.open_run(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_other_weights_have_another_fingerprint():
    one, two = ({"a": np.ones(3), "b": np.full(2, x)} for x in (0.0, 1.0))
    assert runs.fingerprint(one) == runs.fingerprint(dict(one)) != runs.fingerprint(two)


def test_a_config_of_before_a_key_existed_gets_its_default(workdir):
    saved = runs.plain(small_run.config("hues"))
    del saved["samples"]["guidance_interval"], saved["model"]["rays"]
    again = runs.restored(saved)
    assert again.to_dict() == small_run.config("hues").to_dict()
    assert runs.completed(saved) == runs.plain(again)
    saved["model"]["latent_dim"] = 12
    assert runs.restored(saved).model.latent_dim == 12
    assert runs.forbidden_differences(runs.completed(saved), runs.plain(again)) == [
        "model.latent_dim: 12 -> 6"
    ]
