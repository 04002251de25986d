"""The loss of SODA against its formula by hand, its masking, its features and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods import masking
from soda_jax.methods import soda as methods
from soda_jax.methods.base import to_float, to_uint8
from soda_jax.nn.rays import Rays
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.unet import UNet
from tests import tiny

BATCH = tiny.batch()
KEYS = jax.random.split(jax.random.key(1), 16)


def given(method, z, batch=BATCH, keys=KEYS):
    return method.loss_given_latent(tiny.variables(tiny.soda()), z, batch, keys)


def test_bytes_survive_the_way_to_floats_and_back():
    every = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(to_uint8(to_float(every)), every)
    np.testing.assert_array_equal(to_float(every)[jnp.array([0, 255])], [-1.0, 1.0])
    np.testing.assert_array_equal(to_uint8(jnp.array([-7.0, 7.0])), [0, 255])
    np.testing.assert_array_equal(to_float(to_float(every)), to_float(every))


def test_the_training_loss_is_the_formula():
    """(1) to (4) once more, in numpy but for the networks and the draws."""
    method = tiny.soda(mask_section=0.4, mask_all=0.2, source_noise=0.3)
    variables = tiny.variables(tiny.soda())
    loss, aux = method.loss(variables, BATCH, KEYS)

    def draws(number, draw):
        return np.stack([draw(jax.random.fold_in(key, number)) for key in KEYS])

    def normal(number):
        return draws(number, lambda key: jax.random.normal(key, (8, 8, 1)))

    source = np.asarray(BATCH["source"]) / 127.5 - 1 + 0.3 * normal(methods.SOURCE)
    z, _ = method.encoder.apply({"params": variables["params"]["encoder"]}, source, train=True)
    u = draws(methods.MASK, lambda key: jax.random.uniform(key, (4,)))
    z = np.asarray(z).reshape(16, 3, 2) * ((u[:, :3] >= 0.4) & (u[:, 3:] >= 0.2))[..., None]
    t = draws(methods.TIME, lambda key: jax.random.randint(key, (), 1, 1001))
    t = jnp.asarray(t / 1000, jnp.float32)
    alpha, sigma = (
        np.asarray(f(t))[:, None, None, None] for f in (method.schedule.alpha, method.schedule.sigma)
    )
    x0, eps = np.asarray(BATCH["target"]) / 127.5 - 1, normal(methods.NOISE)
    xt = jnp.asarray(alpha * x0 + sigma * eps, jnp.float32)
    hat, _ = method.denoiser.apply({"params": variables["params"]["denoiser"]}, xt, t, jnp.asarray(z))
    assert 0 < np.mean(u[:, :3] < 0.4) < 1
    np.testing.assert_allclose(loss, np.mean((np.asarray(hat) - eps) ** 2), rtol=1e-5)
    np.testing.assert_allclose(aux["metrics"]["z_square"], np.mean(z**2), rtol=1e-5)


def test_sections_are_dropped_with_their_probabilities():
    keys = jax.random.split(jax.random.key(2), 40_000)
    keep = np.asarray(jax.jit(lambda keys: masking.draw_mask(keys, 4, 0.2, 0.1))(keys))
    np.testing.assert_allclose(keep.mean(axis=0), 0.8 * 0.9, atol=0.01)
    assert abs((~keep).all(axis=1).mean() - (0.1 + 0.9 * 0.2**4)) < 0.006
    alive = keep[keep.any(axis=1)]  # given that not all are dropped at once, sections fall independently
    np.testing.assert_allclose(np.cov(alive.T), 0.16 * np.eye(4), atol=0.006)


def test_no_mask_is_drawn_at_probability_zero():
    assert masking.draw_mask(KEYS, 3, 0.0, 0.0).all()


def test_a_masked_section_is_a_zero_vector_and_the_others_stay():
    z = jax.random.normal(jax.random.key(3), (2, 3, 2))
    dropped = masking.drop(z, jnp.array([[True, False, True], [False, True, True]]))
    np.testing.assert_array_equal(dropped[0, 1], 0.0)
    np.testing.assert_array_equal(dropped[1, 0], 0.0)
    np.testing.assert_array_equal(dropped[0, ::2], z[0, ::2])
    np.testing.assert_array_equal(dropped[1, 1:], z[1, 1:])


def test_the_evaluation_loss_hears_no_noise_and_no_mask():
    noisy, plain = (tiny.soda(source_noise=s, mask_all=m) for s, m in ((0.5, 0.9), (0.0, 0.0)))
    variables = tiny.variables(tiny.soda())
    losses = [method.loss(variables, BATCH, KEYS, train=False)[0] for method in (noisy, plain)]
    assert losses[0] == losses[1]
    np.testing.assert_allclose(
        jnp.mean(given(plain, plain.latent(variables, BATCH["source"]))), losses[1], rtol=1e-6
    )


def test_an_example_keeps_its_draws_wherever_the_batch_is_cut():
    method = tiny.soda()
    z = method.latent(tiny.variables(method), BATCH["source"])
    rows = jnp.array([5, 2, 11])
    part = given(method, z[rows], {name: x[rows] for name, x in BATCH.items()}, KEYS[rows])
    np.testing.assert_allclose(part, given(method, z)[rows], rtol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_losses_in_eps_and_in_x0_differ_by_the_signal_to_noise_ratio(prediction):
    """|eps - eps^|^2 = SNR |x0 - x0^|^2 whatever the network predicts."""
    in_eps, in_x0 = (tiny.soda(prediction=prediction, loss_in=kind) for kind in ("eps", "x0"))
    z = in_eps.latent(tiny.variables(tiny.soda()), BATCH["source"])
    t = methods.draw_times(in_eps.schedule, methods.stream(KEYS, methods.TIME))
    snr = jnp.exp(in_eps.schedule.logsnr(t))
    np.testing.assert_allclose(given(in_eps, z), snr * given(in_x0, z), rtol=1e-3)


def test_features_need_the_encoder_alone():
    method = tiny.soda(encoder=tiny.Encoder(batch_norm=True))
    variables = tiny.variables(method)
    alone = {name: {"encoder": tree["encoder"]} for name, tree in variables.items()}
    features = method.encode(alone, BATCH["source"])
    assert {name: x.shape for name, x in features.items()} == {"z": (16, 6), "pooled": (16, 8)}
    np.testing.assert_array_equal(features["z"].reshape(16, 3, 2), method.latent(variables, BATCH["source"]))
    np.testing.assert_array_equal(features["z"], method.encode(alone, to_float(BATCH["source"]))["z"])


def test_statistics_move_in_training_only():
    method = tiny.soda(encoder=tiny.Encoder(batch_norm=True))
    variables = tiny.variables(method)
    means = [
        method.loss(variables, BATCH, KEYS, train)[1]["batch_stats"]["encoder"]["BatchNorm_0"]["mean"]
        for train in (True, False)
    ]
    assert jnp.abs(means[0]).max() > 0 and jnp.abs(means[1]).max() == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": tiny.Encoder(latent_dim=7)}, "model.latent_dim=7.*6 and 9 fit"),
        ({"mask_section": 1.0}, r"model.mask_section must be a probability in \[0, 1\), found 1.0"),
        ({"mask_all": -0.1}, "model.mask_all"),
        ({"source_noise": -1.0}, "model.source_noise must be 0 or more, found -1.0"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny.soda(**changes)


def test_the_real_networks_fit_behind_the_seams():
    """Shapes only: nothing is computed."""
    unet = UNet(channels=8, groups=4, out_channels=3)
    method = methods.SODA(
        encoder=ResNet(depth=18, width=4, latent_dim=10 * unet.sections, stem="small"),
        denoiser=unet,
        schedule=Schedule(steps=0),
    )
    batch = {name: jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.uint8) for name in ("source", "target")}
    variables = jax.eval_shape(lambda key: method.init(key, batch), jax.random.key(0))
    keys = jax.eval_shape(lambda key: jax.random.split(key, 2), jax.random.key(0))
    loss, aux = jax.eval_shape(method.loss, variables, batch, keys)
    assert (method.sections, method.section_dim, loss.shape) == (13, 10, ())
    assert jax.tree.structure(aux["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    assert jax.eval_shape(method.latent, variables, batch["source"]).shape == (2, 13, 10)


def test_a_method_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.soda().mask_all = 0.5


def posed(**changes):
    return tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays(**changes))


def test_a_posed_denoiser_sees_the_rays_behind_the_channels_of_xt():
    """One gradient tells: the first kernel reads channel 1 + i as much as ray coordinate i is there to read."""
    method = posed(scale=2.0)
    variables = tiny.variables(method)
    kernel = variables["params"]["denoiser"]["Conv_0"]["kernel"]
    assert kernel.shape == (3, 3, 1 + 6, 12)
    z = method.latent(variables, BATCH["source"])
    blind = {**variables["params"]["denoiser"], "Conv_0": {**variables["params"]["denoiser"]["Conv_0"]}}
    blind["Conv_0"]["kernel"] = kernel.at[:, :, 1:].set(0.0)
    unseeing = {**variables, "params": {**variables["params"], "denoiser": blind}}
    other = {**BATCH, "target_camera": BATCH["target_camera"][::-1]}
    both = [
        [method.loss_given_latent(v, z, batch, KEYS) for batch in (BATCH, other)]
        for v in (variables, unseeing)
    ]
    assert np.abs(both[0][0] - both[0][1]).min() > 1e-4
    np.testing.assert_array_equal(both[1][0], both[1][1])


def test_a_posed_method_without_cameras_says_what_is_missing():
    batch = {name: BATCH[name] for name in ("source", "target", "index")}
    method = posed()
    with pytest.raises(ValueError, match=r"model\.rays.*source_camera, target_camera, intrinsics"):
        method.loss(tiny.variables(method), batch, KEYS)
    tiny.soda().loss(tiny.variables(tiny.soda()), batch, KEYS)
