"""Classes through noise: what the head and the wide ResNet see and are told."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.base import FROZEN, Method, normal_like, stream, to_float
from soda_jax.methods.ddae import content_keys
from soda_jax.methods.noisy_classifier import LEVEL, NOISE, NoisyClassifier, moved
from soda_jax.nn.ddpm_blocks import TimeMLP
from soda_jax.nn.noisy_wide_resnet import WAVES, NoiseMLP, NoisyWideResNet, standardised
from tests import tiny

NET = {"channels": 16, "dropout": 0.0}


def classifier(framework="ddpm", wrn=False, classes=(2,), **changes):
    net = NoisyWideResNet(classes=sum(classes), depth=10, width=1) if wrn else None
    read = tiny.ddae(framework, net=NET)
    return NoisyClassifier(**{"ddae": read, "classes": classes, "net": net, "shift": 0, **changes})


@functools.cache
def shown(name="head", framework="ddpm"):
    """A classifier of two labels, its variables and a batch."""
    method, batch = classifier(framework, name == "wrn", classes=(2, 3)), tiny.batch()
    return method, tiny.variables(method), batch


@pytest.mark.parametrize("name", ["head", "wrn"])
def test_it_is_a_method_whose_frozen_net_is_no_parameter(name):
    method, variables, _ = shown(name)
    assert isinstance(method, Method)
    assert variables["params"].keys() == ({"head"} if name == "head" else {"net"})
    assert variables["batch_stats"].keys() == ({FROZEN} if name == "head" else set())


def test_time_enters_the_head_as_a_whole_number():
    """By another way: f + e(n), two layers, with e of n itself; t = n / 1000 would be told apart by less than 0.1%."""
    method, variables, batch = shown()
    levels, xt = jnp.array([1, 2, 500, 1000] * 4), to_float(batch["source"])
    f, head = jax.jit(method.read)(variables["batch_stats"], xt, levels), variables["params"]["head"]
    assert f.shape == (16, 16)

    def logits(told):
        h = f + TimeMLP(4).apply({"params": head["time"]}, told)
        h = h @ head["dense_0"]["kernel"] + head["dense_0"]["bias"][None]
        return (h * jax.nn.sigmoid(h)) @ head["dense_1"]["kernel"] + head["dense_1"]["bias"][None]

    found = jax.jit(method.logits)(variables, xt, levels)
    np.testing.assert_allclose(found, logits(levels.astype(jnp.float32)), rtol=1e-4, atol=1e-5)
    assert np.abs(found - logits(levels / 1000)).max() > 0.01


@pytest.mark.parametrize("framework", ["ddpm", "edm"])
def test_the_head_reads_the_tap_of_the_noisy_image_at_its_level(framework):
    method, variables, batch = shown("head", framework)
    number = 300 if framework == "ddpm" else 7
    levels, x0 = jnp.full(16, number), to_float(batch["source"])
    keys = jax.random.split(jax.random.key(4), 16)
    found = jax.jit(method.read)(variables["batch_stats"], method.noisy(x0, levels, keys), levels)
    read = method.ddae
    net = {"params": variables["batch_stats"][FROZEN]["ddae"]}
    maps = jax.jit(read.maps)(net, x0, levels / read.levels, keys)
    np.testing.assert_allclose(found, maps[read.tap].mean((1, 2)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("framework", "levels"), [("ddpm", 1000), ("edm", 18)])
def test_levels_are_uniform_over_all_there_are(framework, levels):
    drawn = np.asarray(classifier(framework).draw(jax.random.split(jax.random.key(0), 4000)))
    assert drawn.min() == 1 and drawn.max() == levels if framework == "edm" else drawn.max() > 990
    counts = np.histogram(drawn, bins=6, range=(0.5, levels + 0.5))[0]
    assert np.all(np.abs(counts / 4000 - 1 / 6) < 0.03)


def test_the_loss_is_the_cross_entropy_of_every_label_at_the_drawn_levels():
    method, variables, batch = shown()
    keys = jax.random.split(jax.random.key(1), 16)
    loss, aux = jax.jit(method.loss)(variables, batch, keys)
    levels = method.draw(stream(keys, LEVEL))
    assert len(set(levels.tolist())) > 8
    level = method.ddae.framework.at(levels / 1000)
    alpha = np.sqrt(1 / (1 + np.exp(-np.asarray(level.logsnr))))[:, None, None, None]
    x0 = np.asarray(to_float(batch["source"]))
    xt = alpha * x0 + np.sqrt(1 - alpha**2) * np.asarray(normal_like(stream(keys, NOISE), jnp.asarray(x0)))
    logits = np.asarray(jax.jit(method.logits)(variables, jnp.asarray(xt), levels))
    expected = 0.0
    for scores, y in zip(np.split(logits, [2], axis=1), np.asarray(batch["labels"]).T, strict=True):
        expected -= np.mean((scores - np.log(np.exp(scores).sum(1, keepdims=True)))[np.arange(16), y])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert 0 <= float(aux["metrics"]["accuracy"]) <= 1


def test_answers_belong_to_the_image_and_the_level():
    """The same image, the same noise, in whichever batch; another level, another draw."""
    method, variables, batch = shown()
    images, number = batch["source"], jnp.int32(700)
    scores = jax.jit(method.scores)
    whole = scores(variables, images, number)
    turned = scores(variables, images[::-1], number)
    np.testing.assert_allclose(turned, whole[::-1], rtol=1e-4, atol=1e-5)
    keys = jax.vmap(lambda k: jax.random.fold_in(k, 700))(content_keys(images))
    levels = jnp.full(16, 700)
    again = jax.jit(method.logits)(variables, method.noisy(to_float(images), levels, keys), levels)
    np.testing.assert_allclose(whole, again, rtol=1e-4, atol=1e-5)
    answers = jax.jit(method.answers)(variables, images, number)["answers"]
    expected = np.stack([whole[:, :2].argmax(1), whole[:, 2:].argmax(1)], 1)
    np.testing.assert_array_equal(answers, expected)


def test_images_are_moved_by_whole_pixels_and_black_comes_in():
    images = jnp.asarray(np.random.default_rng(0).uniform(-0.9, 1, (64, 5, 5, 2)), jnp.float32)
    found = np.asarray(moved(images, jax.random.split(jax.random.key(0), 64), 2))
    padded, seen = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-1.0), set()
    for i in range(64):
        places = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.array_equal(padded[i, r : r + 5, c : c + 5], found[i])
        ]
        assert len(places) == 1
        seen |= {*places}
    assert len(seen) > 15 and {r for r, _ in seen} == set(range(5)) == {c for _, c in seen}


def test_training_moves_images_and_evaluation_does_not():
    method, variables, batch = shown()
    shifting, keys = dataclasses.replace(method, shift=3), jax.random.split(jax.random.key(1), 16)
    loss = jax.jit(lambda m, train: m.loss(variables, batch, keys, train)[0], static_argnums=(0, 1))
    still = [loss(m, False) for m in (method, shifting)]
    np.testing.assert_array_equal(*still)
    assert abs(float(loss(shifting, True)) - float(still[0])) > 1e-5


# The wide ResNet --------------------------------------------------------------------------------------------


def count(**fields):
    net = NoisyWideResNet(classes=10, **fields)
    made = jax.eval_shape(lambda k: net.init(k, jnp.zeros((1, 32, 32, 3)), jnp.zeros(1)), jax.random.key(0))
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(made))


def expected_count(depth, width, embedded=512):
    """By the sizes of its layers."""
    total, last = 3 * 9 * 16 + 16 + 256 * embedded + embedded + embedded * (embedded + 1), 16
    for stage in range(3):
        wide = 16 * 2**stage * width
        for block in range((depth - 4) // 6):
            total += (
                2 * last + 9 * last * wide + wide + (embedded + 1) * wide + 2 * wide + 9 * wide * wide + wide
            )
            total += last * wide + wide if last != wide or (block == 0 and stage) else 0
            last = wide
    return total + 2 * last + last * 10 + 10


@pytest.mark.parametrize(("depth", "width"), [(28, 10), (10, 2), (16, 1)])
def test_the_wide_resnet_has_the_layers_of_its_depth_and_width(depth, width):
    assert count(depth=depth, width=width) == expected_count(depth, width)


def test_each_image_is_standardised_by_itself():
    x = jnp.asarray(np.random.default_rng(0).normal(3, 5, (3, 8, 8, 3)), jnp.float32)
    found = np.asarray(standardised(x.at[2].set(0.25)))
    np.testing.assert_allclose(found[:2].mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found[:2].std((1, 2, 3)), 1, rtol=1e-4)
    np.testing.assert_array_equal(found[2], 0)


def test_noise_is_told_by_sines_and_cosines_of_fixed_frequencies():
    assert WAVES.shape == (128,) and 14 < WAVES.std() < 18
    u = jnp.asarray([0.011, 0.8])
    made = NoiseMLP().init(jax.random.key(0), u)
    first, second = made["params"]["dense_0"], made["params"]["dense_1"]
    angle = 2 * np.pi * np.asarray(u)[:, None] * WAVES
    h = np.concatenate([np.sin(angle), np.cos(angle)], 1) @ np.asarray(first["kernel"]) + np.asarray(
        first["bias"]
    )
    expected = (h / (1 + np.exp(-h))) @ np.asarray(second["kernel"]) + np.asarray(second["bias"])
    np.testing.assert_allclose(NoiseMLP().apply(made, u), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("framework", "level", "told"), [("ddpm", 300, 0.3), ("edm", 4, np.log(0.05995))])
def test_it_is_told_t_or_the_logarithm_of_sigma(framework, level, told):
    method, variables, batch = shown("wrn", framework)
    xt, levels = to_float(batch["source"]), jnp.full(16, level)
    expected = method.net.apply({"params": variables["params"]["net"]}, xt, jnp.full(16, told, jnp.float32))
    np.testing.assert_allclose(jax.jit(method.logits)(variables, xt, levels), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: classifier(shift=-1), r"noisy_classifier\.shift must be 0 or more"),
        (lambda: count(depth=12), r"noisy_classifier\.depth must be 6 n \+ 4"),
        (lambda: count(depth=10, width=0), r"noisy_classifier\.width 1 or more"),
        (
            lambda: tiny.variables(classifier(ddae=tiny.ddae())),
            r"ddae\.tap must have a multiple of 8 features",
        ),
    ],
)
def test_what_cannot_be_is_told_by_key(make, words):
    with pytest.raises(ValueError, match=words):
        make()
