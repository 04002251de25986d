"""U-Nets of `diffusers` as ours: the same answers at the same whole times, and words for what is not known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, convert, diffusers_nets, initial_nets, methods, runs
from experiments.configs import ddae_diffusers, default
from soda_jax.nn.ddpm_blocks import time_sinusoid
from soda_jax.nn.ddpm_layout import LAYOUTS, layout_of
from soda_jax.nn.ddpm_unet import DDPMUNet, Tapped
from soda_jax.nn.diffusers_weights import unet_fields, unet_params
from soda_jax.nn.norm import group_norm
from soda_jax.nn.torch_weights import read
from tests import diffusers_folders as folders

RESNETS = {
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
}
KINDS = {
    "ddpm": folders.DDPM,
    "usual": {**folders.USUAL, "attention_head_dim": 16},
    "resnets": {**folders.DDPM, **RESNETS},
    "cosines first": {**folders.DDPM, "flip_sin_to_cos": True},
}


def method_of(init, **changes):
    """The DDAE that the config of a folder makes, and its initial parameters."""
    config = ddae_diffusers.get_config(str(init))
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return methods.method(config, build.batch_spec(config)), params_of(init)


def params_of(init):
    folder = diffusers_nets.Folder.of(str(init))
    return unet_params(read(folder.weights), folder.config["flip_sin_to_cos"])


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_diffusers_at_the_same_whole_times(kind, tmp_path):
    """Through the folder and the config, asked as samplers, the probe and RepFusion ask: at time (k + 1) / 1000."""
    twin = folders.write(tmp_path, safe=kind != "usual", **KINDS[kind])
    method, params = method_of(tmp_path)
    times = np.array([0, 1, 10, 500, 999])
    images = np.random.default_rng(1).normal(size=(5, 16, 16, 3)).astype(np.float32)
    variables = {"params": {"denoiser": jax.tree.map(jnp.asarray, params)}, "batch_stats": {}}
    level = method.framework.at(jnp.asarray((times + 1) / 1000, jnp.float32))
    found = jax.jit(lambda v, x: method.answer(v, x, level)[0])(variables, images)
    expected = folders.answer(twin, images, times)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    apart = np.abs(folders.answer(twin, images, times + 1) - expected).max((1, 2, 3))
    assert apart.min() > 1e-3 * np.abs(expected).max()  # a time that is off by one would be seen


def test_the_tapped_net_is_told_whole_times_too(tmp_path):
    """The encoder of clean images that is exported and fine-tuned."""
    twin = folders.write(tmp_path, **folders.DDPM)
    method, params = method_of(tmp_path, **{"ddae.draws": 0, "ddae.level": 300, "ddae.tap": "in_3"})
    seen = []
    twin.down_blocks[0].downsamplers[0].register_forward_hook(lambda module, given, out: seen.append(out))
    images = np.random.default_rng(2).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    folders.answer(twin, images, np.full(2, 299))
    encoder, images = method.tapped(), jnp.asarray(images)
    assert isinstance(encoder, Tapped) and encoder.layout == "ddpm"
    needed = jax.eval_shape(lambda: encoder.init(jax.random.key(0), images))["params"]
    z, _ = jax.jit(encoder.apply)({"params": {name: params[name] for name in needed}}, images)
    np.testing.assert_allclose(z, seen[0].numpy().mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_older_names_of_attention_are_read(tmp_path):
    """query, key, value and proj_attn, as the file of google/ddpm-cifar10-32 calls them."""
    folders.write(tmp_path, **folders.DDPM)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    arrays, older = read(tmp_path / diffusers_nets.FILES[0]), {}
    for name, value in arrays.items():
        for new, old in names.items():
            name = name.replace(f".{new}.", f".{old}.")
        older[name] = value
    assert any(".query." in name for name in older) and not any(".to_q." in name for name in older)
    jax.tree.map(np.testing.assert_array_equal, unet_params(older), unet_params(arrays))


# Without diffusers ------------------------------------------------------------------------------------------


def test_the_config_of_ddpm_cifar10(tmp_path):
    """google/ddpm-cifar10-32's config.json is that of the net without a folder, 35.7 M parameters."""
    big = {
        "block_out_channels": [128, 256, 256, 256],
        "layers_per_block": 2,
        "sample_size": 32,
        "in_channels": 3,
    }
    down = ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]
    up = ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
    folders.write_config(tmp_path, **big, down_block_types=down, up_block_types=up, dropout=0.1)
    found, usual = ddae_diffusers.get_config(str(tmp_path)), ddae_diffusers.get_config()
    assert runs.differences(runs.plain(usual), runs.plain(found)) == [f"ddae.init:  -> {tmp_path}"]
    assert (found.model.layout, found.ddae.tap, found.model.head_channels) == ("ddpm", "out_6", 0)


def test_the_fields_of_a_net_as_the_examples_train_it():
    fields = unet_fields({"_class_name": "UNet2DModel", **folders.NET})
    assert fields == {
        "channels": 32,
        "multipliers": (1, 2),
        "attention": (False, True),
        "blocks": 1,
        "head_channels": 8,
        "resample": "conv",
        "dropout": 0.0,
        "layout": "diffusers",
        "out_channels": 3,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name = 'UNet2DConditionModel'"),
        ({"norm_num_groups": 16}, "norm_num_groups = 16 is not known here, expected 32"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"num_class_embeds": 10}, "num_class_embeds = 10"),
        ({"block_out_channels": [32, 48]}, "block_out_channels"),
        ({"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "up_block_types"),
        ({"out_channels": 6}, "out_channels = 6"),
        ({"downsample_type": "resnet"}, "upsample_type = 'conv'"),
        ({"norm_eps": 1e-5}, "norm_eps, downsample_padding, freq_shift"),
    ],
)
def test_an_architecture_that_is_not_known_is_told_by_the_key_of_its_config(changes, words, tmp_path, capsys):
    """Before any weight is read."""
    folders.write_config(tmp_path / "net", **changes)
    assert convert.main([f"--init={tmp_path / 'net'}", f"--workdir={tmp_path / 'run'}"]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule = 'squaredcos_cap_v2' is not known here"),
        ({"num_train_timesteps": 4000}, "num_train_timesteps = 4000"),
        ({"trained_betas": [0.1]}, r"trained_betas = \[0\.1\] is not known here, expected None"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True is not known here, expected False"),
        ({"prediction_type": "flow"}, "prediction_type = 'flow'"),
    ],
)
def test_a_noise_that_is_not_known_is_told_by_the_key_of_the_scheduler(scheduler, words, tmp_path):
    folder = folders.write_config(tmp_path)
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(ValueError, match=words):
        ddae_diffusers.get_config(str(folder))


def test_what_the_scheduler_predicts_is_what_is_trained(tmp_path):
    """Of a pipeline's folder, whose parts lie side by side."""
    folders.write_config(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    config = ddae_diffusers.get_config(str(tmp_path))
    assert (config.diffusion.prediction, config.diffusion.loss_in, config.data.image_size) == ("v", "v", 16)


@pytest.mark.parametrize(
    ("key", "value", "needed"), [("ddae.self_condition", "middle", "''"), ("model.denoiser", "dit", "'unet'")]
)
def test_a_net_that_no_file_has_is_refused_by_its_key(key, value, needed, tmp_path):
    net = initial_nets.of_diffusers(diffusers_nets.Folder.of(str(folders.write_config(tmp_path))))
    with pytest.raises(ValueError, match=rf"set --config\.{key}={needed}, or take"):
        initial_nets.check_config("net", net, {**net.keys, key: value})


def test_folders_that_are_none_are_told(tmp_path, capsys):
    assert convert.main([f"--init={tmp_path}", f"--workdir={tmp_path / 'run'}"]) == 1
    assert "expected a folder of diffusers with a config.json" in capsys.readouterr().err
    folder = folders.write_config(tmp_path / "net")
    (folder / diffusers_nets.FILES[0]).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected diffusion_pytorch_model\.safetensors or .*\.bin in"
    ):
        diffusers_nets.Folder.of(str(folder))
    (folder / "config.json").write_text("{")
    (folder / diffusers_nets.FILES[1]).write_bytes(b"")
    with pytest.raises(ValueError, match="is not JSON"):
        ddae_diffusers.get_config(str(folder))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mid_block.resnets.0.conv3.weight", "conv3"),
        ("transformer.wte.weight", "transformer"),
        ("conv_in.running_mean", "running_mean"),
        ("mid_block.attentions.0.norm_q.weight", "norm_q"),
    ],
)
def test_names_that_are_none_of_a_unets_are_told(name, words):
    state = {"mid_block.resnets.0.conv1.weight": np.zeros((1, 1, 3, 3)), name: np.zeros(1)}
    with pytest.raises(ValueError, match=f"the weights hold '.*{words}"):
        unet_params(state)


def test_attention_without_its_keys_is_told():
    queries = {
        "mid_block.attentions.0.to_q.weight": np.zeros((4, 4)),
        "mid_block.attentions.0.to_v.weight": np.eye(4),
    }
    with pytest.raises(ValueError, match=r"the weights lack mid_block\.attentions\.0\.to_k\.weight"):
        unet_params(queries)


# Layouts ----------------------------------------------------------------------------------------------------

SMALL = {"channels": 32, "multipliers": (1, 1), "blocks": 1, "attention": (False, False), "dropout": 0.0}


def test_whole_times_are_exact_for_every_time_there_is():
    """float32 of k / 1000 is told as k - 1, never a neighbour; ddae's is told as it comes."""
    t = jnp.arange(1, 1001, dtype=jnp.float32) / 1000
    np.testing.assert_array_equal(LAYOUTS["ddpm"].told(t), np.arange(1000))
    np.testing.assert_array_equal(LAYOUTS["ddae"].told(t), t)


def test_the_usual_sinusoid_ends_before_its_lowest_frequency():
    found = time_sinusoid(jnp.asarray([7.0]), 8, 0)[0]
    angle = 7.0 * np.exp(-np.log(1e4) * np.arange(4) / 4)
    np.testing.assert_allclose(found, np.concatenate([np.sin(angle), np.cos(angle)]), rtol=1e-5, atol=1e-6)


def test_layouts_have_the_same_parameters_and_other_answers():
    x, u = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.asarray([0.1, 0.7])
    variables = jax.jit(DDPMUNet(**SMALL).init)(jax.random.key(0), x, u)
    alike = [
        name for name, layout in LAYOUTS.items() if not layout.scaled
    ]  # all but adm, which asks more of time
    answers = [jax.jit(DDPMUNet(**SMALL, layout=name).apply)(variables, x, u)[0] for name in alike]
    for i, one in enumerate(answers):
        assert one.shape == x.shape
        assert all(np.abs(np.asarray(one - other)).max() > 1e-3 for other in answers[:i])


def test_epsilon_is_that_of_the_layout():
    x = 1e-3 * jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    small, usual = group_norm(x, 2, epsilon=1e-6), group_norm(x, 2)
    deviation = np.asarray(x).reshape(2, 16, 2, 4).std((1, 3)).mean()
    np.testing.assert_allclose(np.std(small), deviation / np.sqrt(deviation**2 + 1e-6), rtol=0.05)
    np.testing.assert_allclose(np.std(usual), deviation / np.sqrt(deviation**2 + 1e-5), rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.layout": "iddpm"}, r"model\.layout='iddpm' is unknown"),
        (
            {"model.layout": "ddpm", "diffusion.steps": 100},
            r"set diffusion\.framework='ddpm' and diffusion\.steps=",
        ),
    ],
)
def test_layouts_that_cannot_be_are_told_by_key(changes, words):
    config = default.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({"method": "ddae", **changes})
    with pytest.raises(ValueError, match=words):
        methods.method(config, build.batch_spec(config))
    assert layout_of("ddae") == LAYOUTS["ddae"]
