"""DDAE's networks: to the last parameter, from their start on, and against diffusers' U-Net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.conv import upsample
from soda_jax.nn.ddpm_blocks import average_pairs, time_sinusoid
from soda_jax.nn.ddpm_unet import MIDDLE, DDPMUNet, Tapped
from soda_jax.nn.diffusers_weights import unet_params

PLUS = {"multipliers": (2, 2, 2), "blocks": 4, "attention": (False, True, False), "resample": "block"}
SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (False, True), "dropout": 0.0}


def shapes(net, side=32, **more):
    """(features, parameters) as shapes."""
    x, u = jnp.zeros((1, side, side, 3)), jnp.zeros(1)
    (_, features), variables = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, u, **more))
    return features, variables["params"]


def count(params):
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, 35_746_307), (PLUS, 56_524_291), ({**PLUS, "label_dim": 9}, 56_525_443)],
    ids=["ddpm", "ddpmpp", "ddpmpp with labels"],
)
def test_parameters_are_those_of_the_paper(fields, expected):
    assert count(shapes(DDPMUNet(**fields))[1]) == expected


def test_the_authors_network_for_tiny_imagenet():
    """Issue 3 of their repository gives the sizes; 281.4 M follow."""
    fields = {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "resample": "block"}
    net = DDPMUNet(**fields, attention=(False, True, True, True), head_channels=64)
    assert round(count(shapes(net, 64)[1]) / 1e6, 1) == 281.4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {4: (256, 3), 8: (256, 3), 16: (256, 3), 32: (128, 3)}),
        (PLUS, {8: (256, 5), 16: (256, 5), 32: (256, 5)}),
    ],
    ids=["ddpm", "ddpmpp"],
)
def test_taps_are_those_of_the_paper(fields, expected):
    """side -> (channels, blocks), from the coarsest on."""
    features, _ = shapes(DDPMUNet(**fields))
    found = [features[f"out_{k}"].shape for k in range(1, 1 + sum(n for _, n in expected.values()))]
    assert found == [(1, side, side, c) for side, (c, n) in expected.items() for _ in range(n)]
    assert features["middle"].shape == features[MIDDLE].shape == features["out_1"].shape


@pytest.mark.parametrize("resample", ["conv", "block"])
def test_an_encoder_is_the_net_up_to_its_tap(resample):
    """The mean of that very map, by a part of the net's own parameters: the more of them, the later the tap."""
    net, (x, told) = DDPMUNet(**SMALL, resample=resample), inputs()
    variables = net.init(jax.random.key(0), x, told)
    _, features = net.apply(variables, 0.5 * x, jnp.full(len(x), 0.3))
    sizes = []
    for tap, expected in features.items():
        encoder = Tapped(**SMALL, resample=resample, tap=tap, scale=0.5, told=0.3)
        needed = jax.eval_shape(lambda encoder=encoder: encoder.init(jax.random.key(0), x))["params"]
        assert needed.keys() <= variables["params"].keys()
        z, found = encoder.apply({"params": {name: variables["params"][name] for name in needed}}, x)
        np.testing.assert_allclose(z, np.asarray(expected).mean((1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(z, found["z"])
        np.testing.assert_array_equal(z, found["pooled"])
        sizes.append(count(needed))
    assert sizes == sorted(sizes) and sizes[0] < 0.3 * sizes[-1] < 0.3 * count(variables["params"])


def test_an_encoder_has_no_other_taps_than_the_net():
    with pytest.raises(
        ValueError, match=r"ddae\.tap: expected one of in_1, .*, middle/branch, .*out_4, found 'out_5'"
    ):
        Tapped(**SMALL, tap="out_5").init(jax.random.key(0), inputs()[0])


def test_an_encoder_takes_any_number_of_images():
    """As the programs of a bundle do; also of a net that was told of an augmentation."""
    (b,) = jax.export.symbolic_shape("b")
    encoder = Tapped(**SMALL, label_dim=9, tap="in_2")
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    z, _ = jax.eval_shape(encoder.apply, variables, jax.ShapeDtypeStruct((b, 8, 8, 3), jnp.float32))
    assert z.shape == (b, 32)


def inputs():
    """Three images of 8 pixels, and what is told of their noise."""
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(3, 8, 8, 3)), jnp.float32), jnp.asarray([0.1, 0.5, 0.9])


def test_weights_and_biases_start_as_pytorchs():
    """Uniform up to 1 / sqrt(fan_in), the largest of many near it; norms at 1 and 0."""
    net = DDPMUNet(**SMALL)
    params = net.init(jax.random.key(3), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))["params"]
    layers = {
        "conv": (params["up_1_block0"]["conv0"], 9 * 128),
        "time": (params["time"]["dense_1"], 128),
        "attention": (params["middle_block0"]["attention"]["qkv"], 64),
        "last": (params["out_conv"], 9 * 32),
    }
    for name, (layer, fan_in) in layers.items():
        for leaf in ("kernel", "bias"):
            largest, bound = float(jnp.abs(layer[leaf]).max()), fan_in**-0.5
            assert largest <= bound, (name, leaf)
            assert largest > (0.95 if layer[leaf].size > 50 else 0.2) * bound, (name, leaf)
        assert abs(float(layer["kernel"].std()) * (3 * fan_in) ** 0.5 - 1) < 0.05, name
    norm = params["middle_block0"]["norm0"]
    assert np.all(norm["scale"] == 1) and np.all(norm["bias"] == 0)


def test_time_is_sines_then_cosines_with_63_in_the_denominator():
    found = time_sinusoid(jnp.asarray([0.011]), 128)[0]
    k = np.arange(64)
    angle = 0.011 * np.exp(-np.log(1e4) * k / 63)
    np.testing.assert_allclose(found, np.concatenate([np.sin(angle), np.cos(angle)]), rtol=1e-5)


def test_labels_are_added_to_the_sinusoid_and_none_counts_as_zeros():
    net = DDPMUNet(**SMALL, label_dim=3)
    x, u, key = jnp.ones((2, 8, 8, 3)), jnp.full(2, 0.3), jax.random.key(0)
    variables = net.init(key, x, u)
    none, zeros, ones = (
        net.apply(variables, x, u, labels=labels)[0] for labels in (None, jnp.zeros((2, 3)), jnp.ones((2, 3)))
    )
    np.testing.assert_array_equal(none, zeros)
    assert float(jnp.abs(ones - none).max()) > 1e-4


def test_pairs_are_averaged_and_repeated():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(average_pairs(x)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(average_pairs(upsample(x)), x)


def test_recomputing_blocks_changes_nothing():
    x, u = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.full(2, 0.3)
    plain, again = DDPMUNet(**SMALL), DDPMUNet(**SMALL, remat="blocks")
    variables = plain.init(jax.random.key(0), x, u)
    out, features = plain.apply(variables, x, u)
    others = again.apply(variables, x, u)
    np.testing.assert_allclose(others[0], out, atol=1e-6)
    assert others[1].keys() == features.keys()


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"attention": (True,)}, "model.attention"),
        ({"resample": "pool"}, "model.resample"),
        ({"remat": "all"}, "model.remat"),
        ({"head_channels": 48}, "model.head_channels"),
        ({"channels": 3}, "model.channels"),
        ({"patch": 3}, "data.image_size"),
    ],
)
def test_what_does_not_fit_is_told_by_key(fields, key):
    with pytest.raises(ValueError, match=key):
        shapes(DDPMUNet(**{**SMALL, **fields}), 16)


# Against diffusers -----------------------------------------------------------------------------------------------


def diffusers_net(resample, head_channels=None):
    """Its U-Net of SMALL's sizes, with the padding and the last norm of DDAE."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    plain = {
        "conv": ("DownBlock2D", "UpBlock2D"),
        "resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
    }
    down, up = plain[resample]
    net = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=(down, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", up),
        downsample_type=resample,
        upsample_type=resample,
        downsample_padding=1,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-5,
        attention_head_dim=head_channels,
    )
    net.conv_norm_out = torch.nn.GroupNorm(8, 32, eps=1e-5)
    return net.eval()


@pytest.mark.parametrize("resample", ["conv", "block"])
@pytest.mark.parametrize("head_channels", [0, 16])
def test_it_computes_what_diffusers_computes(resample, head_channels):
    twin = diffusers_net({"conv": "conv", "block": "resnet"}[resample], head_channels or None)
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in twin.parameters():  # norms too: at 1 and 0 they would hide an exchange
            p.copy_(torch.from_numpy(rng.normal(0, 0.1, p.shape).astype(np.float32)))
        x, u = rng.normal(size=(2, 16, 16, 3)).astype(np.float32), np.array([0.3, 2.0], np.float32)
        expected = twin(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(u)).sample.numpy()
    params = unet_params({name: value.numpy() for name, value in twin.state_dict().items()})
    net = DDPMUNet(**SMALL, resample=resample, head_channels=head_channels)
    wanted = shapes(net, 16)[1]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, wanted)
    found = net.apply({"params": jax.tree.map(jnp.asarray, params)}, jnp.asarray(x), jnp.asarray(u))[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=1e-5 * scale)


def test_a_file_of_another_network_is_refused():
    with pytest.raises(ValueError, match="transformer"):
        unet_params(
            {"mid_block.resnets.0.conv1.weight": np.zeros((1, 1, 3, 3)), "transformer.wte": np.zeros(1)}
        )
