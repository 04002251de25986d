"""Runs made of weights that diffusers wrote: that everything which takes a DDAE run takes them, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import convert, probe, runs, train
from experiments.configs import ddae_diffusers, ddae_fashion_mnist, finetune, repfusion_fashion_mnist
from experiments.job import prepare
from experiments.origins import taken_for
from experiments.runs import open_run
from soda_jax.methods.base import FROZEN
from soda_jax.training import checkpoints
from soda_jax.training.signals import StopRequest
from tests import diffusers_folders as folders
from tests import prepared_data, small_job, small_run

BATCH = 8


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(the folder, the network that is in it)"""
    folder = tmp_path_factory.mktemp("weights")
    return folder, folders.write(folder, **folders.DDPM)


def data():
    return {"data.name": small_run.dataset(), "data.dir": str(prepared_data.data_dir()), "data.workers": 0}


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory):
    """The workdir of the run."""
    workdir = tmp_path_factory.mktemp("converted") / "run"
    changes = [f"--config.{key}={value}" for key, value in {**data(), "compilation_cache": ""}.items()]
    assert convert.main([f"--init={weights[0]}", f"--workdir={workdir}", *changes]) == 0
    return workdir


def config_of(folder, **changes):
    """For training that begins with these weights."""
    config = ddae_diffusers.get_config(str(folder))
    short = {
        "train.batch": BATCH,
        "train.images": 3 * BATCH,
        "samples.every_images": 0,
        "compilation_cache": "",
    }
    with config.unlocked():
        config.update_from_flattened_dict({**data(), **short, "mesh.data": 1, **changes})
    return config


def test_the_run_has_one_checkpoint_whose_net_answers_as_the_file_s(weights, converted):
    run = open_run(converted)
    assert run.step == 0 and run.config.model.layout == "ddpm" and run.config.ddae.init == str(weights[0])
    images, times = (
        np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32),
        np.array([20, 700]),
    )
    level = run.method.framework.at(jnp.asarray((times + 1) / 1000, jnp.float32))
    found = jax.jit(lambda v, x: run.method.answer(v, x, level)[0])(run.ema_variables(), images)
    expected = folders.answer(weights[1], images, times)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    about = json.loads((converted / "init.json").read_text())
    assert about["net"] == runs.fingerprint(run.ema_variables()["params"]["denoiser"])


def test_it_can_be_probed(converted, capsys):
    """The plain probe, of step 0."""
    short = ("--config.probe.images=200", "--config.probe.knn_k=2", "--config.probe.batch=8")
    assert probe.main([f"--workdir={converted}", "--step=0", *short]) == 0
    found = json.loads((converted / "probe" / "0" / "results.json").read_text())
    assert found["step"] == 0 and {"z", "untrained"} <= found["labels"]["hue"].keys()


def test_it_can_be_fine_tuned(converted, tmp_path):
    """Its net up to the tap is what that begins with."""
    config = finetune.get_config(str(converted))
    assert config.finetune.step == 0 and config.model.layout == "ddpm"
    taken = taken_for(prepare(config, tmp_path), 0, print, lambda phase, step: None)
    expected = open_run(converted).ema_variables()["params"]["denoiser"]
    for name, layer in taken["params"]["encoder"].items():
        jax.tree.map(np.testing.assert_array_equal, layer, jax.device_get(expected[name]))


def test_it_can_be_distilled(weights, converted, tmp_path):
    """The teacher of a student, told action a as diffusers' time a."""
    config = repfusion_fashion_mnist.get_config(str(converted))
    with config.unlocked():
        changes = {
            "data.source_size": 16,
            "data.image_size": 16,
            "data.channels": 3,
            "supervised.classes": (2, 3),
        }
        config.update_from_flattened_dict({**data(), **changes, "repfusion.time": "uniform"})
    job = prepare(config, tmp_path)
    taken = taken_for(job, 0, print, lambda phase, step: None)
    images, action = (
        np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32),
        np.array([3, 41]),
    )
    seen = []
    block = weights[1].mid_block.resnets[1].conv2
    handle = block.register_forward_hook(lambda module, given, out: seen.append(out.numpy()))
    folders.answer(weights[1], images, action)
    handle.remove()
    frozen = {FROZEN: jax.tree.map(jnp.asarray, taken["batch_stats"][FROZEN])}
    found = jax.jit(job.method.teacher_map)(frozen, jnp.asarray(images), jnp.asarray(action))
    np.testing.assert_allclose(found, seen[0].transpose(0, 2, 3, 1), rtol=1e-3, atol=1e-4)


def test_training_goes_on_from_it_and_from_init_alike(weights, tmp_path, monkeypatch):
    """Bit for bit: from a run that was converted, and from --init at once; a second time it goes on, not back."""
    folder = tmp_path / "converted"
    program = train.compile_step(prepare(config_of(weights[0]), tmp_path / "none"), print)
    monkeypatch.setattr(train, "compile_step", lambda job, say: program)
    convert.convert(config_of(weights[0]), folder)
    assert checkpoints.steps(folder / "checkpoints") == [0]
    assert (
        train.run(prepare(config_of(weights[0], **{"ddae.init": ""}), folder), StopRequest(), print).step == 3
    )
    config = train.with_init(config_of(weights[0], **{"ddae.init": ""}), str(weights[0]))
    job = prepare(config, tmp_path / "fresh")
    assert train.run(job, small_job.StopAt(1), print).kind == "stopped"
    assert train.run(job, StopRequest(), print).kind == "finished"
    ours, theirs = (
        checkpoints.load_as_saved(path / "checkpoints", 3) for path in (folder, tmp_path / "fresh")
    )
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)


def test_a_folder_that_is_a_run_is_left_alone(weights, converted, capsys):
    assert convert.main([f"--init={weights[0]}", f"--workdir={converted}"]) == 1
    assert "is a run already, with checkpoints [0]" in capsys.readouterr().err
    assert convert.main([f"--init={weights[0]}", f"--workdir={converted}", "--config.model.chanels=3"]) == 1
    assert "chanels" in capsys.readouterr().err
    assert convert.main([f"--init={weights[0]}", f"--workdir={converted}", "--confg=3"]) == 1
    assert "confg" in capsys.readouterr().err


def begin(folder, workdir, **changes):
    """What a run with these weights takes over."""
    return taken_for(prepare(config_of(folder, **changes), workdir), 0, print, lambda phase, step: None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop("conv_out.bias"), r"the weights lack out_conv/bias \[3\]"),
        (
            lambda arrays: arrays.update({"mid_block.resnets.2.conv1.bias": np.zeros(64, np.float32)}),
            "hold middle_block2/conv0/bias, which the config has not",
        ),
        (
            lambda arrays: arrays.update({"conv_in.bias": np.zeros(7, np.float32)}),
            r"have first/bias as \[7\], not \[32\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told_by_name(change, words, weights, tmp_path):
    copy = tmp_path / "weights"
    weights[1].save_pretrained(copy)
    with pytest.raises(ValueError, match=words):
        begin(folders.rewritten(copy, change), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model.layout": "ddae"},
            r"set --config\.model\.layout='ddpm', or take --config=.*ddae_diffusers\.py:",
        ),
        ({"diffusion.schedule": "cosine"}, r"set --config\.diffusion\.schedule='linear'"),
        ({"model.blocks": 2, "ddae.tap": "out_2"}, r"set --config\.model\.blocks=1"),
    ],
)
def test_a_config_that_is_not_the_nets_is_told_with_what_to_set(changes, words, weights, tmp_path):
    with pytest.raises(ValueError, match=words):
        begin(weights[0], tmp_path, **changes)


def test_other_methods_know_no_such_beginning():
    config = ddae_fashion_mnist.get_config()
    assert train.with_init(config, None).ddae.init == ""
    config.method = "soda"
    with pytest.raises(ValueError, match=r"--init is for config\.method='ddae', found 'soda'"):
        train.with_init(config, "weights")
