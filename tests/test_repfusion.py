"""RepFusion: what the teacher is shown, what is learned of it, and what stays as it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.base import FROZEN, UNAVERAGED, Method, to_float
from soda_jax.methods.distances import distance
from soda_jax.methods.time_choice import Uniform
from soda_jax.nn.ddpm_unet import MIDDLE
from tests import tiny

CHOICES = ("fixed", "uniform", "rl")


def loss(method, variables, batch, train=True):
    keys = jax.random.split(jax.random.key(0), len(batch["source"]))
    return method.loss(variables, batch, keys, train=train)


def fresh(method):
    return jax.jit(lambda key: method.init(key, tiny.spec(tiny.large_batch())))(jax.random.key(0))


@pytest.mark.parametrize("name", CHOICES)
def test_it_is_a_method(name):
    assert isinstance(tiny.repfusion(name), Method)


def test_the_teacher_sees_clean_images_at_the_time_after_the_action():
    """Action a is time a + 1 of T; the tap is the branch of the last middle block, before its input is added."""
    method, batch = tiny.repfusion("fixed"), tiny.large_batch()
    variables, images = fresh(method), to_float(batch["source"])
    found = method.teacher_map(variables["batch_stats"], images, jnp.full(16, 6))
    net = {"params": variables["batch_stats"][FROZEN]["teacher"]["denoiser"]}
    features = method.teacher.denoiser.apply(net, images, jnp.full(16, 0.007))[1]
    np.testing.assert_allclose(found, features[MIDDLE], rtol=1e-4, atol=1e-6)
    assert float(jnp.abs(features[MIDDLE] - features["middle"]).max()) > 0.1


def test_images_are_scaled_to_what_the_teacher_knows():
    method = dataclasses.replace(tiny.repfusion("fixed"), teacher_shape=(8, 8, 1))
    variables, images = fresh(method), to_float(tiny.large_batch()["source"])
    found = method.teacher_map(variables["batch_stats"], images, jnp.zeros(16, jnp.int32))
    small = jax.image.resize(images, (16, 8, 8, 1), "linear")
    np.testing.assert_allclose(
        found, method.teacher_map(variables["batch_stats"], small, jnp.zeros(16, jnp.int32)), atol=1e-6
    )


@pytest.mark.parametrize("kind", ["hint", "hint_dense", "at", "rkd"])
def test_the_loss_is_the_distance_of_the_maps(kind):
    method, batch = tiny.repfusion("fixed", distance=kind, weight=2.0), tiny.large_batch()
    variables = fresh(method)
    h = method.teacher_map(variables["batch_stats"], to_float(batch["source"]), jnp.full(16, 6))
    s = method.encode(variables, batch["source"])["map"]
    layer = variables["params"]["projection"]
    projected = s @ layer["kernel"] + layer["bias"][None, None, None]
    found, aux = loss(method, variables, batch, train=False)
    np.testing.assert_allclose(found, 2 * distance(kind, s, projected, h), rtol=1e-4)
    np.testing.assert_allclose(aux["metrics"]["distance"], found)
    assert float(aux["metrics"]["mean_t"]) == 6 and float(aux["metrics"]["t/0"]) == 1


@pytest.mark.parametrize("name", CHOICES)
def test_the_teacher_stays_and_the_rest_learns(name):
    method = tiny.repfusion(name)
    state, step = jax.jit(lambda key: tiny.large_state(key, method))(jax.random.key(0)), tiny.step(method)
    before = jax.device_get(state)
    losses = []
    for _ in range(30):
        state, metrics = step(state, tiny.large_batch())
        losses.append(float(metrics["distance"]))
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats[FROZEN], before.batch_stats[FROZEN])
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    moved = {
        name: max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for name, pair in ((n, (state.params[n], before.params[n])) for n in state.params)
    }
    assert set(moved) == {"encoder", "projection", *(("policy", "head") if name == "rl" else ())}
    assert min(moved.values()) > 1e-4
    assert int(state.batch_stats[UNAVERAGED]["updates"]) == 30
    assert set(state.ema_batch_stats) <= {"encoder"}


def test_the_reward_does_not_reach_the_student():
    """With the distance weighted 0 only policy and head have a gradient."""
    method, batch = tiny.repfusion("rl", weight=0.0), tiny.large_batch()
    variables = fresh(method)

    def of(params):
        return loss(method, {**variables, "params": params}, batch)[0]

    gradient = jax.jit(jax.grad(of))(variables["params"])
    largest = {
        name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
        for name, tree in gradient.items()
    }
    assert largest["encoder"] == largest["projection"] == 0
    assert largest["policy"] > 1e-6 and largest["head"] > 1e-6


def test_nothing_is_learned_through_the_teacher():
    """Neither its parameters nor, through it, the images have a gradient."""
    method = tiny.repfusion("fixed")
    variables, images = fresh(method), to_float(tiny.large_batch()["source"])
    stats = variables["batch_stats"]

    def of(teacher, images):
        frozen = {**stats, FROZEN: {"teacher": teacher}}
        return jnp.sum(method.teacher_map(frozen, images, jnp.zeros(16, jnp.int32)))

    gradients = jax.jit(jax.grad(of, argnums=(0, 1)))(stats[FROZEN]["teacher"], images)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_features_are_the_students_pooled_ones():
    method = tiny.repfusion("fixed")
    variables = fresh(method)
    alone = {
        "params": {"encoder": variables["params"]["encoder"]},
        "batch_stats": {"encoder": variables["batch_stats"]["encoder"]},
    }
    features = method.encode(alone, tiny.large_batch()["source"])
    np.testing.assert_array_equal(features["z"], features["pooled"])


def test_uniform_times_differ_between_images_and_not_between_batches():
    method, batch = tiny.repfusion("uniform"), tiny.large_batch()
    assert isinstance(method.choice, Uniform)
    variables, keys = fresh(method), jax.random.split(jax.random.key(0), 16)
    whole = method.choice.choose({}, to_float(batch["source"]), keys).action
    assert len(set(np.asarray(whole).tolist())) > 3
    metrics = loss(method, variables, batch)[1]["metrics"]
    assert 0 < float(metrics["mean_t"]) < 50


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"repfusion\.weight"):
        tiny.repfusion("fixed", weight=-1.0)
