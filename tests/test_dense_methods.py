"""Losses of dense tasks by hand, what is trained and what is not, and that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.base import Method
from soda_jax.methods.dense import IGNORED, cross_entropy
from soda_jax.nn.ddpm_unet import Tapped
from soda_jax.nn.heat_maps import heat_maps, to_map
from soda_jax.nn.mobilenet import MobileNetV2
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.vit import ViT
from soda_jax.nn.wide_resnet import WideResNet
from soda_jax.training.optimizer import Ema
from soda_jax.training.step import make_step
from tests import tiny

TASKS = ("segmentation", "landmarks")
KEYS = jax.random.split(jax.random.key(0), 16)


def test_cross_entropy_is_a_mean_over_labelled_pixels_and_then_over_images():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5, 3)).astype(np.float32)
    mask = rng.integers(0, 3, (3, 4, 5), np.uint8)
    mask[0, :3], mask[2] = IGNORED, IGNORED
    expected = []
    for scores, truth in zip(logits, mask, strict=True):
        shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        each = [-np.log(shares[r, c, truth[r, c]]) for r, c in np.argwhere(truth != IGNORED)]
        expected.append(np.mean(each) if each else 0.0)
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(mask)), expected, rtol=1e-5)


def test_segmentation_adds_its_early_answers():
    batch = tiny.batch()
    variables = tiny.variables(tiny.dense("segmentation"))
    losses = {}
    for weight in (0.0, 1.0, 2.0):
        method = tiny.dense("segmentation", auxiliary=weight)
        assert isinstance(method, Method)
        losses[weight], aux = method.loss(variables, batch, KEYS)
    (logits, early), _ = method.answer(variables, batch["source"], True)
    first = jnp.mean(cross_entropy(logits, batch["mask"]))
    more = jnp.mean(cross_entropy(early[0], batch["mask"]))
    assert len(early) == 1
    np.testing.assert_allclose(
        [losses[0.0], losses[1.0], losses[2.0]], [first, first + more, first + 2 * more], rtol=1e-5
    )
    known = np.asarray(batch["mask"]) != IGNORED
    right = np.argmax(logits, -1) == np.asarray(batch["mask"])
    share = [np.mean(r[k]) for r, k in zip(right, known, strict=True)]
    assert float(aux["metrics"]["accuracy"]) == pytest.approx(np.mean(share), abs=1e-5)


def test_landmarks_are_held_against_their_heat_maps_where_they_are_labelled():
    method, batch = tiny.dense("landmarks"), tiny.batch()
    variables = tiny.variables(method)
    loss, aux = method.loss(variables, batch, KEYS, train=False)
    maps, _ = method.answer(variables, batch["source"], False)
    truth = heat_maps(to_map(batch["points"], 4, 8), 4, 1.0)
    each = np.square(np.asarray(maps - truth)).mean((1, 2))
    labelled = np.asarray(batch["seen"]) > 0
    assert 0.3 < labelled.mean() < 1
    np.testing.assert_allclose(loss, (each * labelled).mean(), rtol=1e-5)
    apart = np.linalg.norm(np.asarray(method.predict(variables, batch["source"]) - batch["points"]), axis=-1)
    missed = [a[k].mean() if k.any() else 0.0 for a, k in zip(apart, labelled, strict=True)]
    assert float(aux["metrics"]["pixels"]) == pytest.approx(np.mean(missed), rel=1e-4)
    wild = {**batch, "points": jnp.where(batch["seen"][..., None] > 0, batch["points"], 1e3)}
    np.testing.assert_allclose(method.loss(variables, wild, KEYS, train=False)[0], loss, rtol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_no_gradient_reaches_a_frozen_encoder(task):
    """Nor do its statistics move; the head does."""
    method = tiny.dense(task, frozen=True)
    optimizer = tiny.optimizer(weight_decay=0.0)
    start = tiny.state(method)
    state = start.replace(opt_state=optimizer.init(start.params))
    step = jax.jit(make_step(method, optimizer, Ema(decay=0.99), 1, seed=0))
    after, metrics = step(state, tiny.batch())
    for kind in ("params", "batch_stats", "ema_params"):
        before, now = (getattr(x, kind) for x in (state, after))
        jax.tree.map(np.testing.assert_array_equal, before["encoder"], now["encoder"])
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params["heads"], after.params["heads"])
    assert all(jax.tree.leaves(moved)) and float(metrics["grad_norm"]) > 0


@pytest.mark.parametrize("task", TASKS)
def test_an_encoder_that_is_not_frozen_is_trained_along(task):
    method = tiny.dense(task)
    state = tiny.state(method)
    before = jax.tree.map(jnp.copy, (state.params["encoder"], state.batch_stats["encoder"]))
    after, _ = tiny.step(method)(state, tiny.batch())
    now = (after.params["encoder"], after.batch_stats["encoder"])
    still = {
        "/".join(str(k.key) for k in path[1:-1])
        for path, same in jax.tree.leaves_with_path(
            jax.tree.map(lambda a, b: bool(jnp.all(a == b)), before, now)
        )
        if same
    }
    assert still <= {"Dense_0"}, "the layer of z, which no map depends on, has decayed at most"


@pytest.mark.parametrize(
    ("task", "metric", "most"), [("segmentation", "accuracy", None), ("landmarks", "pixels", 1.0)]
)
def test_it_learns_sixteen_images(task, metric, most):
    method = tiny.dense(task)
    state, step, batch = tiny.state(method), tiny.step(method), tiny.batch()
    for _ in range(400):
        state, metrics = step(state, batch)
    assert float(metrics[metric]) < most if most else float(metrics[metric]) > 0.95


@pytest.mark.parametrize(
    ("encoder", "last"),
    [
        (ResNet(depth=18, width=4, latent_dim=6), "stage4_block2"),
        (ViT(variant="Ti", patch=8, latent_dim=6), "block12"),
        (MobileNetV2(width=0.5, latent_dim=6, stem="small"), "last"),
        (WideResNet(depth=10, widen=1, latent_dim=6), "last"),
        (
            Tapped(channels=8, multipliers=(1, 2), blocks=1, attention=(False, False), tap="in_3"),
            "down_0_resample",
        ),
    ],
)
def test_layers_are_those_that_lead_to_the_maps(encoder, last):
    spec = {"source": jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8)}
    layers = tiny.dense("segmentation", encoder=encoder).layers(spec)
    assert layers[-1] == f"encoder/{last}" and "encoder/head" not in layers


def test_wrong_weights_are_told_by_key():
    with pytest.raises(ValueError, match=r"dense\.auxiliary must be 0 or more, found -1"):
        tiny.dense("segmentation", auxiliary=-1.0)
    with pytest.raises(ValueError, match=r"dense\.sigma must be more than 0, found 0"):
        tiny.dense("landmarks", sigma=0.0)
