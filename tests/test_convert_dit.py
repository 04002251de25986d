"""Runs made of files of DiT's public weights: the same answers as the file's net, of latents, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, convert, initial_nets, methods, probe, runs, train
from experiments.configs import ddae_dit_latents
from experiments.job import prepare
from experiments.origins import taken_for
from experiments.runs import open_run
from soda_jax.nn import dit_weights
from soda_jax.nn.dit import SIZES, DiT, places
from soda_jax.training.signals import StopRequest
from tests import prepared_data, test_latents_data
from tests.arrays import normal

SMALL = {"width": 16, "depth": 3, "heads": 2, "patch": 2}
SIDE = test_latents_data.SIDE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(the file, the network that is in it, PyTorch)"""
    torch = pytest.importorskip("torch", reason="the twin needs PyTorch")
    twins = pytest.importorskip("tests.dit_twins")
    twin = twins.randomised(twins.DiT(SIDE, 4, **SMALL, classes=5, sigma=True)).eval()
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(twin.state_dict(), path)
    return path, twin, torch


def data():
    """Keys of it."""
    test_latents_data.dataset()
    return {"data.name": "latents", "data.dir": str(prepared_data.data_dir()), "data.workers": 0}


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory):
    """The workdir of the run."""
    workdir = tmp_path_factory.mktemp("converted") / "run"
    changes = [f"--config.{key}={value}" for key, value in {**data(), "compilation_cache": ""}.items()]
    assert convert.main([f"--init={weights[0]},2", f"--workdir={workdir}", *changes]) == 0
    return workdir


def test_the_run_answers_and_is_read_as_the_net_of_the_file_under_its_null_class(weights, converted):
    run, (path, twin, torch) = open_run(converted), weights
    assert run.step == 0 and run.config.ddae.init == f"{path},2" and run.config.data.image_size == SIDE
    assert (run.config.ddae.tap, run.config.ddae.level) == ("block_2", 122)
    latents, step, blocks = np.asarray(normal(2, SIDE, SIDE, 4)), np.array([121, 700]), []
    twin.blocks[1].register_forward_hook(lambda module, given, out: blocks.append(out))
    with torch.no_grad():
        x, null = torch.from_numpy(latents.transpose(0, 3, 1, 2).copy()), torch.full((2,), 5)
        expected = twin(x, torch.from_numpy(step), null)[:, :4].numpy().transpose(0, 2, 3, 1)
    level = run.method.framework.at(jnp.asarray((step + 1) / 1000, jnp.float32))
    found, maps = jax.jit(lambda v, x: run.method.answer(v, x, level))(run.ema_variables(), latents)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    tap = maps[run.config.ddae.tap].reshape(2, -1, SMALL["width"])
    np.testing.assert_allclose(tap, blocks[0].numpy(), atol=1e-4 * np.abs(tap).max())


def test_its_grid_can_be_probed(converted):
    """The latents of the data set, by the main that images are probed by."""
    short = ("--config.probe.images=60", "--config.probe.batch=4", "--config.probe.holdout=0.3")
    arguments = [f"--workdir={converted}", "--step=0", "--levels=122", "--layers=block_1,block_2", "--grid"]
    assert probe.main([*arguments, *short]) == 0
    found = json.loads((converted / "probe_grid" / "0" / "results.json").read_text())
    assert {cell["layer"] for cell in found["cells"]} == {"block_1", "block_2"}


def test_init_takes_what_convert_takes(weights, converted, tmp_path):
    config = ddae_dit_latents.get_config(f"{weights[0]},2")
    with config.unlocked():
        config.update_from_flattened_dict({**data(), "mesh.data": 1})
    taken = taken_for(prepare(config, tmp_path), 0, print, lambda phase, step: None)
    expected = open_run(converted).ema_variables()["params"]
    jax.tree.map(np.testing.assert_array_equal, taken["params"], jax.device_get(expected))


def test_the_classes_are_kept_where_the_config_has_as_many(weights, tmp_path):
    """Each class answers as in the file, the null class too; another number is refused before anything begins."""
    path, twin, torch = weights
    config = ddae_dit_latents.get_config(f"{path},2")
    with config.unlocked():
        config.update_from_flattened_dict({**data(), "mesh.data": 1, "ddae.classes": 5})
    net = initial_nets.net_in(config.ddae.init, 5)
    initial_nets.check_config(config.ddae.init, net, dict(runs.flat(config.to_dict())))
    method = methods.method(config, build.batch_spec(config))
    variables = {"params": {"denoiser": jax.tree.map(jnp.asarray, net.params())}}
    latents, steps = np.asarray(normal(3, SIDE, SIDE, 4)), np.array([121, 700, 3])
    level = method.framework.at(jnp.asarray((steps + 1) / 1000, jnp.float32))
    for classes in (np.array([0, 4, 2]), None):
        with torch.no_grad():
            told = torch.from_numpy(np.full(3, 5) if classes is None else classes)
            x = torch.from_numpy(latents.transpose(0, 3, 1, 2).copy())
            expected = twin(x, torch.from_numpy(steps), told)[:, :4].numpy().transpose(0, 2, 3, 1)
        given = None if classes is None else jnp.asarray(classes, jnp.int32)
        found = method.answer(variables, jnp.asarray(latents), level, classes=given)[0]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(ValueError, match=r"ddae\.classes=4: the net in .* knows 5, so set 5, or 0"):
        initial_nets.net_in(config.ddae.init, 4).params()


@pytest.mark.slow
def test_training_goes_on_from_the_file(weights, tmp_path):
    config = ddae_dit_latents.get_config(f"{weights[0]},2")
    short = {"train.batch": 8, "train.images": 16, "compilation_cache": "", "mesh.data": 1}
    with config.unlocked():
        config.update_from_flattened_dict({**data(), **short, "ddae.init": ""})
    config = train.with_init(config, f"{weights[0]},2")
    assert train.run(prepare(config, tmp_path), StopRequest(), print).step == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.patch": 4}, r"set --config\.model\.patch=2, or take --config=.*ddae_dit_latents\.py:"),
        ({"diffusion.schedule": "cosine"}, r"set --config\.diffusion\.schedule='linear'"),
        ({"model.dit_depth": 4}, r"set --config\.model\.dit_depth=3"),
    ],
)
def test_a_config_that_is_not_the_nets_is_told_with_what_to_set(changes, words, weights, tmp_path):
    config = ddae_dit_latents.get_config(f"{weights[0]},2")
    with config.unlocked():
        config.update_from_flattened_dict({**data(), "mesh.data": 1, **changes})
    with pytest.raises(ValueError, match=words):
        taken_for(prepare(config, tmp_path), 0, print, lambda phase, step: None)


def test_heads_that_the_file_does_not_tell_are_asked_for(weights, tmp_path, capsys):
    assert convert.main([f"--init={weights[0]}", f"--workdir={tmp_path}"]) == 1
    assert "width 16 and depth 3 has how many heads? Give `heads`: FILE,HEADS" in capsys.readouterr().err


# Without PyTorch --------------------------------------------------------------------------------------------


def test_the_config_of_a_file_of_dit_xl():
    """Of its true shapes: that of the net without a file."""
    net = DiT(**SIZES["XL"]._asdict(), patch=2, out_channels=4, class_count=1000, learn_sigma=True)
    state = {
        name: np.broadcast_to(np.float32(0), shape) for name, _, shape in dit_weights.layout(net)
    }  # no memory
    state["pos_embed"] = np.asarray(places(16, 16, 1152))[None]
    found = dit_weights.network(state)
    assert found == net
    config = ddae_dit_latents.get_config()
    with config.unlocked():
        before = config.to_json()
        config.update_from_flattened_dict(initial_nets.dit_nets.keys_of(found, state))
    assert config.to_json() == before and config.model.dit_size == "XL" and config.data.image_size == 32


def test_files_of_other_nets_are_told_by_their_names(tmp_path, capsys):
    numpy_files = pytest.importorskip("safetensors.numpy")
    numpy_files.save_file({"conv1.weight": np.zeros((2, 2))}, tmp_path / "resnet.safetensors")
    init = tmp_path / "resnet.safetensors"
    assert convert.main([f"--init={init}", f"--workdir={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert (
        "holds 'conv1.weight': expected the weights of a DiT ('x_embedder.proj.weight', ...) or an" in error
    )
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_path_may_have_commas():
    for more in ("4", "new", "legacy"):
        assert initial_nets.parsed(f"a,b/net.pt,{more}") == ("a,b/net.pt", more)
    assert initial_nets.parsed("a,b/net.pt") == ("a,b/net.pt", "")
