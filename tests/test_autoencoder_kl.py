"""SD's VAE: its true size, what it computes beside diffusers', and what is said of files that do not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn import autoencoder_weights
from soda_jax.nn.autoencoder_kl import HIGH, AutoencoderKL, Decoder, Encoder
from soda_jax.nn.torch_weights import read
from tests.arrays import normal

SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 1}
NET = AutoencoderKL(encoder=Encoder(**SMALL), decoder=Decoder(**SMALL))
CONFIG = {"_class_name": "AutoencoderKL", "block_out_channels": [32, 64], "layers_per_block": 1}
CONFIG |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
TOLERANCE = 1e-4  # of the largest number


def state(net=NET, **changes):
    """Random arrays of the true shapes, under the names of diffusers; None takes one away."""
    rng = np.random.default_rng(0)
    names = autoencoder_weights.layout(net)
    arrays = {name: rng.normal(0, 0.1, size=shape).astype(np.float32) for name, _, shape in names}
    arrays |= {name.replace("__", "."): x for name, x in changes.items()}
    return {name: x for name, x in arrays.items() if x is not None}


def assert_close(ours, theirs):
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.abs(theirs).max(), rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, diffusers' network that is in it, PyTorch); no parameter is at its start."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    given = {name: value for name, value in CONFIG.items() if name != "_class_name"}
    net, rng = diffusers.AutoencoderKL(**given, scaling_factor=0.2), np.random.default_rng(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.from_numpy(rng.normal(0, 0.1, p.shape).astype(np.float32)))
    folder = tmp_path_factory.mktemp("vae")
    net.eval().save_pretrained(folder / "vae")
    return folder, net, torch


def test_posterior_and_image_are_those_of_diffusers(saved):
    """Of a folder whose folder `vae` it is; not square, for an exchange of sides would be seen."""
    folder, twin, torch = saved
    vae, params = autoencoder_weights.read(folder)
    assert vae.scale == 0.2 and vae.factor == 2
    images, z = np.asarray(normal(2, 16, 8, 3)), np.asarray(normal(2, 8, 4, 4, seed=1))
    with torch.no_grad():
        posterior = twin.encode(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).latent_dist
        drawn = twin.decode(torch.from_numpy(z.transpose(0, 3, 1, 2).copy()) / 0.2).sample
    mean, log_var = jax.jit(vae.moments)(params, images)
    assert_close(mean, posterior.mean)
    assert_close(log_var, posterior.logvar)
    assert_close(jax.jit(vae.decode)(params, z), drawn)
    eps = normal(2, 8, 4, 4, seed=2)
    expected = 0.2 * (mean + jnp.exp(log_var / 2) * eps)
    drawn, middle = jax.jit(lambda p, x, e: (vae.encode(p, x, e), vae.encode(p, x)))(params, images, eps)
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(middle, 0.2 * mean, rtol=1e-4, atol=1e-4)


def test_older_names_and_files_of_pytorch_are_read(saved, tmp_path):
    """query, key, value and proj_attn in a .bin, as sd-vae-ft-mse was first published."""
    folder, _, torch = saved
    arrays, older = read(folder / "vae" / autoencoder_weights.FILES[0]), {}
    for name, value in arrays.items():
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(f".{new}.", f".{old}.")
        older[name] = torch.from_numpy(value.copy())
    assert sum(".query." in name for name in older) == 4
    torch.save(older, tmp_path / autoencoder_weights.FILES[1])
    (tmp_path / "config.json").write_text((folder / "vae" / "config.json").read_text())
    jax.tree.map(
        np.testing.assert_array_equal,
        autoencoder_weights.read(tmp_path)[1],
        autoencoder_weights.read(folder)[1],
    )


# Without PyTorch --------------------------------------------------------------------------------------------


def test_the_true_network_has_its_parameters():
    """Of sd-vae-ft-mse, counted by its config.json; every one has its array."""
    big = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2}
    big |= {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    vae = autoencoder_weights.network(big)
    found = jax.eval_shape(vae.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(found)) == 83_653_863
    assert sum(np.prod(shape) for _, _, shape in autoencoder_weights.layout(vae)) == 83_653_863
    assert vae == AutoencoderKL(encoder=Encoder(), decoder=Decoder()) and vae.factor == 8


def test_every_parameter_has_its_array():
    params = autoencoder_weights.vae_params(state(), NET)
    wanted = jax.eval_shape(NET.init, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, wanted)


def test_log_variances_are_kept_within_bounds():
    params = autoencoder_weights.vae_params(state(), NET)
    params["encoder"]["quant"]["bias"] = np.full(8, 1e3, np.float32)
    mean, log_var = jax.jit(NET.moments)(params, normal(1, 4, 4, 3))
    assert (log_var == HIGH).all() and (mean > 500).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder__conv_out__bias": None}, r"small\.bin has no 'encoder\.conv_out\.bias'"),
        (
            {"decoder__mid_block__attentions__0__to_k__weight": None},
            r"has no 'decoder\.mid_block\.attentions\.0\.to_k",
        ),
        (
            {"quant_conv__weight": np.zeros((8, 8))},
            r"'quant_conv\.weight' has shape \[8, 8\], expected \[8, 8, 1, 1\]",
        ),
        ({"encoder__norm_q__weight": np.zeros(4)}, r"holds 'encoder\.norm_q\.weight', which this"),
    ],
)
def test_a_file_that_does_not_fit_is_told_by_key(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        autoencoder_weights.vae_params(state(**changes), NET, "small.bin")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "AutoencoderTiny"}, "_class_name = 'AutoencoderTiny' is not known here"),
        ({"norm_num_groups": 16}, "norm_num_groups = 16 is not known here, expected 32"),
        (
            {"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]},
            r"down_block_types = \('DownE",
        ),
        ({"block_out_channels": [32, 48]}, r"block_out_channels = \(32, 48\) must be multiples"),
        ({"shift_factor": 0.1}, "shift_factor = 0.1"),
        ({"use_quant_conv": False}, "use_quant_conv = False"),
    ],
)
def test_an_architecture_that_is_not_known_is_told_by_the_key_of_its_config(changes, words):
    with pytest.raises(ValueError, match=words):
        autoencoder_weights.network({**CONFIG, **changes})


def test_folders_that_are_none_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"with a config\.json, found none"):
        autoencoder_weights.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match=r"expected diffusion_pytorch_model\.safetensors or"):
        autoencoder_weights.read(tmp_path)
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        autoencoder_weights.read(tmp_path)


def test_sides_that_cannot_be_halved_are_told():
    with pytest.raises(ValueError, match="images to encode: 15x16 images do not fit"):
        jax.eval_shape(NET.encoder.init, jax.random.key(0), jnp.zeros((1, 15, 16, 3)))
