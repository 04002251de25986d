"""DDAE: its loss, and that features belong to an image, not to its batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.process import corrupt_to
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.methods.base import Method, normal_like, stream, to_float
from soda_jax.methods.ddae import LEVEL, NOISE, content_keys
from soda_jax.training.flops import forward_flops
from tests import tiny

FRAMEWORKS = ("ddpm", "edm")


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8))


def fresh(method, key=0):
    return jax.jit(lambda key: method.init(key, tiny.spec(tiny.batch())))(jax.random.key(key))


def test_it_is_a_method():
    assert isinstance(tiny.ddae(), Method)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_loss_is_the_frameworks_of_noise_and_levels_by_example(name, images):
    method, keys = tiny.ddae(name), jax.random.split(jax.random.key(1), 6)
    variables = fresh(method)
    loss, aux = method.loss(variables, {"target": images}, keys, train=False)
    x0 = to_float(images)
    eps, level = normal_like(stream(keys, NOISE), x0), method.framework.draw(stream(keys, LEVEL))
    seen = method.framework.seen(corrupt_to(level.logsnr, x0, eps), level)
    net = {"params": variables["params"]["denoiser"]}
    answers = [method.denoiser.apply(net, seen[i : i + 1], level.told[i : i + 1])[0] for i in range(6)]
    expected = method.framework.losses(jnp.concatenate(answers), x0, eps, level).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert aux["batch_stats"] == {}


def test_training_drops_out_and_evaluation_does_not(images):
    method, keys = tiny.ddae(net={"dropout": 0.5}), jax.random.split(jax.random.key(1), 6)
    variables, batch = fresh(method), {"target": images}
    plain = tiny.ddae(net={"dropout": 0.0})
    still = [method.loss(variables, batch, keys, train=False)[0], plain.loss(variables, batch, keys)[0]]
    np.testing.assert_array_equal(*still)
    assert abs(float(method.loss(variables, batch, keys)[0] - still[0])) > 1e-3


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_features_of_an_image_are_the_same_in_any_batch(name, images):
    method = tiny.ddae(name, draws=2)
    variables = fresh(method)
    whole = method.encode(variables, images)
    turned = method.encode(variables, images[::-1][:2])
    for feature in ("z", "pooled", "out_1"):
        np.testing.assert_allclose(turned[feature], whole[feature][::-1][:2], atol=1e-6)
    scaled = method.encode(variables, to_float(images))
    np.testing.assert_allclose(scaled["z"], whole["z"], atol=1e-6)


def test_z_is_the_mean_over_pixels_of_the_tap_and_pooled_that_of_the_middle(images):
    method = tiny.ddae()
    variables = fresh(method)
    features = method.encode(variables, images)
    keys = stream(content_keys(images), 0)
    maps = method.maps(variables, images, jnp.full(6, 0.004), keys)
    np.testing.assert_allclose(features["z"], maps["out_2"].mean((1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features["pooled"], maps["middle"].mean((1, 2)), rtol=1e-4, atol=1e-6)
    assert {"in_1", "out_4"} <= features.keys()


def test_noise_makes_features_differ_and_its_draws_are_averaged(images):
    one, many, clean = (tiny.ddae(draws=draws, level=300) for draws in (1, 4, 0))
    variables = fresh(one)
    z1, z4, z0 = (np.asarray(jax.jit(m.encode)(variables, images)["z"]) for m in (one, many, clean))
    drawn = jax.jit(lambda keys: one.pooled(variables, images, jnp.full(6, 0.3), keys)["out_2"])
    single = [np.asarray(drawn(stream(content_keys(images), i))) for i in range(4)]
    np.testing.assert_allclose(z1, single[0], atol=1e-6)
    np.testing.assert_allclose(z4, np.mean(single, axis=0), atol=1e-5)
    far = [np.abs(a - b).max() for a, b in ((single[0], single[1]), (z1, z4), (z0, z4))]
    assert min(far) > 1e-4


def test_a_key_is_the_images_own():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (512, 8, 8, 1), np.uint8)
    images[1:65] = images[0]
    images[np.arange(1, 65), np.arange(64) // 8, np.arange(64) % 8, 0] ^= 1  # one bit of one pixel each
    words = np.asarray(jax.random.key_data(content_keys(jnp.asarray(images))))
    assert len({tuple(word) for word in words.tolist()}) == len(images)
    mirrored = jax.random.key_data(content_keys(jnp.asarray(images[:4, :, ::-1])))
    assert not np.any(np.all(np.asarray(mirrored) == words[:4], axis=-1))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_net_runs_up_to_the_tap_and_no_further(name):
    """By the operations of the compiled program: an earlier tap is cheaper, and the last one misses the last layers."""
    method, images = tiny.ddae(name), jnp.zeros((4, 8, 8, 1), jnp.uint8)
    variables = fresh(method)

    def cost(tap):
        program = jax.jit(lambda v, x: dataclasses.replace(method, tap=tap).encode(v, x)["z"])
        return program.lower(variables, images).compile().cost_analysis()["flops"]

    whole = forward_flops(
        lambda v, x: method.answer(v, x, method.framework.at(jnp.ones(4)))[0], variables, to_float(images)
    )
    costs = [cost(tap) for tap in ("in_2", "middle", "out_1", "out_2", "out_4")]
    assert costs == sorted(costs) and costs[0] < 0.3 * costs[-1]
    assert costs[1] < 0.75 * whole


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("level", [1, 9])
def test_the_tapped_net_gives_the_features_of_clean_images(name, level):
    method = tiny.ddae(name, draws=0, level=level)
    variables, images = fresh(method), tiny.batch()["source"]
    encoder = method.tapped()
    needed = jax.eval_shape(lambda: encoder.init(jax.random.key(0), to_float(images)))["params"]
    z, _ = encoder.apply(
        {"params": {k: variables["params"]["denoiser"][k] for k in needed}}, to_float(images)
    )
    np.testing.assert_allclose(z, method.encode(variables, images)["z"], rtol=1e-4, atol=1e-5)
    other = dataclasses.replace(method, level=5).tapped()
    assert abs(other.told - encoder.told) > 1e-3 and (other.scale != encoder.scale) == (name == "edm")


def test_a_perfect_net_draws_the_one_image_that_it_knows(images):
    """The answer that belongs to x0 = image, whatever xt: every sampler must end there."""
    image = to_float(images[:1])
    for name, kind, steps in (("ddpm", "ddim", 20), ("edm", "heun", 18)):
        method = tiny.ddae(name)

        def knowing(variables, xt, t, method=method):
            level = method.framework.at(t)
            wide = jnp.exp(level.logsnr / 2)[:, None, None, None]  # alpha / sigma
            return xt * jnp.sqrt(1 + wide**2) - wide * image

        known = type("Knowing", (type(method),), {"denoise": lambda self, v, xt, t: knowing(v, xt, t)})
        oracle = known(**{f.name: getattr(method, f.name) for f in dataclasses.fields(method)})
        noise = jax.random.normal(jax.random.key(0), image.shape)
        drawn = oracle.generate({}, noise, Sampler(kind=kind, steps=steps), jax.random.key(1))
        np.testing.assert_allclose(drawn, image, atol=2e-2)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_it_learns_to_overfit_one_image(name, images):
    """Sixty steps halve the loss, at least."""
    method = tiny.ddae(name, net={"dropout": 0.0, "channels": 16})
    state, step = jax.jit(lambda key: tiny.create_state(key, method))(jax.random.key(0)), tiny.step(method)
    batch = {"target": jnp.repeat(images[:1], 16, axis=0)}
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("fields", "key"),
    [({"level": 0}, r"ddae\.level"), ({"level": 1001}, r"ddae\.level"), ({"draws": -1}, r"ddae\.draws")],
)
def test_what_is_out_of_range_is_told_by_key(fields, key):
    with pytest.raises(ValueError, match=key):
        tiny.ddae(**fields)


def test_a_tap_that_is_none_is_told_with_those_that_are():
    with pytest.raises(ValueError, match=r"ddae\.tap: expected one of in_1, .*out_4, found 'out_9'"):
        tiny.ddae(tap="out_9").init(jax.random.key(0), tiny.spec(tiny.batch()))
    with pytest.raises(ValueError, match=r"teacher\.tap: expected one of"):
        tiny.ddae(tap="out_9", tap_key="teacher.tap").init(jax.random.key(0), tiny.spec(tiny.batch()))
