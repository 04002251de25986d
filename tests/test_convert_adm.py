"""Runs made of files of ADM's public weights: read as the net of the file, and RepFusion's teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import adm_nets, convert, runs
from experiments.configs import ddae_adm, repfusion_fashion_mnist
from experiments.job import prepare
from experiments.origins import taken_for
from experiments.runs import open_run
from soda_jax.methods.base import FROZEN
from tests import prepared_data, small_run
from tests.test_adm_weights import PUBLIC_64, state, twin_of


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """(the workdir of the run, the network of its file, PyTorch): of a net that knows one class, its mean."""
    torch, twin = twin_of(classes=1, new=False)
    folder = tmp_path_factory.mktemp("adm")
    torch.save(twin.state_dict(), folder / "small.pt")
    assert (
        convert.main([f"--init={folder / 'small.pt'},legacy", f"--workdir={folder / 'run'}", *changes()]) == 0
    )
    return folder / "run", twin, torch


def changes():
    """Flags of the data set, and of what is not told of a net that nobody published."""
    c = {"data.name": small_run.dataset(), "data.dir": str(prepared_data.data_dir()), "data.workers": 0}
    c |= {"data.image_size": 16, "data.source_size": 16, "compilation_cache": ""}
    return [f"--config.{key}={value}" for key, value in c.items()]


@pytest.mark.slow
def test_a_student_learns_what_the_file_s_net_has_in_its_middle(converted, tmp_path):
    """The second convolution of the last block there, before its input is added; action a is ADM's time a."""
    workdir, twin, torch = converted
    run = open_run(workdir)
    assert run.step == 0 and (run.config.model.layout, run.config.ddae.tap) == ("adm", "out_2")
    config = repfusion_fashion_mnist.get_config(str(workdir))
    data = {"data.name": "hues", "data.dir": str(prepared_data.data_dir()), "data.workers": 0}
    data |= {"data.source_size": 16, "data.image_size": 16, "data.channels": 3, "supervised.classes": (2, 3)}
    with config.unlocked():
        config.update_from_flattened_dict({**data, "repfusion.time": "uniform"})
    job = prepare(config, tmp_path)
    taken = taken_for(job, 0, print, lambda phase, step: None)
    images, action, seen = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), np.array([3, 41]), []
    images = images.astype(np.float32)
    block = twin.middle_block[2].out_layers[3]
    handle = block.register_forward_hook(lambda module, given, out: seen.append(out.numpy()))
    with torch.no_grad():
        x, none = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.zeros(2, dtype=torch.long)
        twin(x, torch.from_numpy(action), none)
    handle.remove()
    frozen = {FROZEN: jax.tree.map(jnp.asarray, taken["batch_stats"][FROZEN])}
    found = jax.jit(job.method.teacher_map)(frozen, jnp.asarray(images), jnp.asarray(action))
    expected = seen[0].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


# Without PyTorch --------------------------------------------------------------------------------------------


def test_the_config_without_a_file_is_that_of_64x64_diffusion():
    config, keys = ddae_adm.get_config(), adm_nets.keys_of(PUBLIC_64)
    found = dict(runs.flat(config.to_dict()))
    assert {key: found[key] for key in keys} == keys
    assert (config.diffusion.schedule, config.data.image_size, config.ddae.tap) == ("cosine", 64, "out_8")


def test_an_order_that_the_file_does_not_tell_is_asked_for(tmp_path, capsys):
    numpy_files = pytest.importorskip("safetensors.numpy")
    numpy_files.save_file(state(), tmp_path / "small.safetensors")
    init = f"--init={tmp_path / 'small.safetensors'}"
    assert convert.main([init, f"--workdir={tmp_path / 'run'}", *changes()]) == 1
    assert "in which order, new or legacy? FILE,ORDER" in capsys.readouterr().err
    assert convert.main([init, f"--workdir={tmp_path / 'run'}", *changes(), "--config.model.blocks=2"]) == 1
    assert "set --config.model.blocks=1, or take" in capsys.readouterr().err
