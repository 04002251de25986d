"""SimCLR, BYOL and VICReg against their papers' equations, and what each of them promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.base import UNAVERAGED, Method
from soda_jax.methods.consistency import vicreg
from soda_jax.methods.siamese import BYOL, SimCLR, VICReg, nt_xent, spread
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_batch, replicated
from soda_jax.training.latent_monitor import monitor, warning
from tests import tiny

NAMES = ("simclr", "vicreg", "byol")


def fresh(method, key=0):
    return jax.jit(lambda key: method.init(key, tiny.spec(tiny.batch())))(jax.random.key(key))


def loss(method, variables, batch, train=True):
    keys = jax.random.split(jax.random.key(0), len(batch["source"]))
    return method.loss(variables, batch, keys, train=train)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_method_whose_codes_can_be_probed(name):
    method = tiny.siamese(name)
    assert isinstance(method, Method)
    features = method.encode(fresh(method), tiny.batch()["source"])
    assert features["z"].shape == (16, 6) and features["pooled"].shape == (16, 8)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_symmetric_in_the_views(name):
    method, batch = tiny.siamese(name), tiny.batch()
    variables = fresh(method)
    turned = {**batch, "source": batch["target"], "target": batch["source"]}
    np.testing.assert_allclose(
        loss(method, variables, turned)[0], loss(method, variables, batch)[0], rtol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_statistics_follow_in_training_alone(name):
    method, batch = tiny.siamese(name), tiny.batch()
    variables = fresh(method)
    before = variables["batch_stats"]
    after, still = (loss(method, variables, batch, train)[1]["batch_stats"] for train in (True, False))
    for network in ("encoder", "projector", *(("predictor",) if name == "byol" else ())):
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after[network], before[network])
        assert max(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(np.testing.assert_array_equal, still, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_devices_changes_no_loss_and_no_gradient(name):
    """Codes of all rows are held against each other, and normalised together, wherever the rows lie."""
    method, batch = tiny.siamese(name), tiny.batch()
    variables, mesh = tiny.variables(method), make_mesh(2, 4)

    @jax.jit
    def gradient(params, batch):
        return jax.value_and_grad(lambda p: loss(method, {**variables, "params": p}, batch)[0])(params)

    expected, reference = gradient(variables["params"], batch)
    cut = put_batch(batch, tiny.spec(batch), mesh)
    assert len(cut["source"].sharding.device_set) == 8
    found, others = gradient(jax.device_put(variables["params"], replicated(mesh)), cut)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(reference))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * largest), others, reference
    )


# SimCLR ----------------------------------------------------------------------------------------------------------


def test_nt_xent_is_the_equation_of_its_paper():
    p = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)
    u = p / np.linalg.norm(p, axis=-1, keepdims=True)
    views = [u[i, v] for i in range(5) for v in range(2)]
    total = 0.0
    for i, one in enumerate(views):
        similar = {k: np.exp(one @ other / 0.3) for k, other in enumerate(views) if k != i}
        total -= np.log(similar[i ^ 1] / sum(similar.values()))
    np.testing.assert_allclose(nt_xent(jnp.asarray(p), 0.3), total / 10, rtol=1e-5)


def test_nt_xent_of_orthogonal_images_is_least():
    """log(1 + (2b - 2) / e^(1/T)) where views agree and images are orthogonal; log(2b - 1) where all codes are one."""
    eye = jnp.repeat(jnp.eye(4)[:, None], 2, axis=1)
    np.testing.assert_allclose(nt_xent(7 * eye, 0.5), np.log(1 + 6 / np.exp(2)), rtol=1e-5)
    np.testing.assert_allclose(nt_xent(jnp.ones((4, 2, 3)), 0.5), np.log(7), rtol=1e-5)


def test_spread_tells_collapse():
    codes = jax.random.normal(jax.random.key(0), (500, 2, 16))
    assert float(spread(codes)) == pytest.approx(1, abs=0.01)
    assert float(spread(1 + 1e-4 * codes)) < 1e-3


# VICReg ----------------------------------------------------------------------------------------------------------


def test_vicreg_is_that_of_consistency_on_both_views():
    method, batch = tiny.siamese("vicreg"), tiny.batch()
    variables = fresh(method)
    p = method.project(variables, batch, train=True)[1]
    np.testing.assert_allclose(loss(method, variables, batch)[0], vicreg(p[:, 0], p[:, 1]), rtol=1e-6)


# BYOL ------------------------------------------------------------------------------------------------------------


def test_byol_is_the_equation_of_its_paper():
    method, batch = tiny.siamese("byol"), tiny.batch()
    variables = fresh(method)
    p = method.project(variables, batch, train=True)[1]
    q = method.answered(variables, p, train=True)[0]
    m = method.wanted(variables, batch, train=True)
    q, m = (np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, m))
    expected = [np.sum((q[i, 0] - m[i, 1]) ** 2) + np.sum((q[i, 1] - m[i, 0]) ** 2) for i in range(16)]
    np.testing.assert_allclose(loss(method, variables, batch)[0], np.mean(expected), rtol=1e-4)


def test_averaged_networks_get_no_gradient_and_the_others_do():
    method, batch = tiny.siamese("byol"), tiny.batch()
    variables = fresh(method)

    def of(params, average):
        stats = {
            **variables["batch_stats"],
            UNAVERAGED: {**variables["batch_stats"][UNAVERAGED], "params": average},
        }
        return loss(method, {"params": params, "batch_stats": stats}, batch)[0]

    average = variables["batch_stats"][UNAVERAGED]["params"]
    assert set(average) == {"encoder", "projector"}
    trained, still = jax.jit(jax.grad(of, argnums=(0, 1)))(variables["params"], average)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(still))
    for network in ("encoder", "projector", "predictor"):
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(trained[network])) > 1e-4


def test_averages_follow_by_the_cosine_and_stand_still_at_the_end():
    method = tiny.siamese("byol", momentum=0.9, total_steps=10)
    variables = fresh(method)
    params = jax.tree.map(lambda x: x + 1, variables["params"])
    stats = variables["batch_stats"]
    moved = []
    for _ in range(12):
        before = stats[UNAVERAGED]["params"]["encoder"]["Dense_0"]["kernel"]
        stats = method.after_step(params, stats)
        after = stats[UNAVERAGED]["params"]["encoder"]["Dense_0"]["kernel"]
        away = params["encoder"]["Dense_0"]["kernel"] - before
        moved.append(float(((after - before) / away).mean()))
    expected = 0.1 * (1 + np.cos(np.pi * np.minimum(np.arange(12) / 10, 1))) / 2
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    assert int(stats[UNAVERAGED]["updates"]) == 12


def test_a_step_moves_the_averages_once_and_after_the_parameters():
    method = tiny.siamese("byol", momentum=0.5, total_steps=10**6)
    for accumulation in (1, 2):
        state = tiny.state(method)
        start = jax.tree.map(np.asarray, state.batch_stats[UNAVERAGED]["params"])
        state, _ = tiny.step(method, accumulation)(state, tiny.batch())
        average = state.batch_stats[UNAVERAGED]
        assert int(average["updates"]) == 1
        for name in ("encoder", "projector"):
            halfway = jax.tree.map(lambda a, b: (a + np.asarray(b)) / 2, start[name], state.params[name])
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), average["params"][name], halfway
            )
        assert UNAVERAGED not in state.ema_batch_stats


# Learning, and collapse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_forty_steps_bring_the_views_of_an_image_together(name):
    """Sixteen images of one colour each; the target is the source, somewhat brighter."""
    rng = np.random.default_rng(0)
    source = np.broadcast_to(rng.integers(20, 200, (16, 1, 1, 1)), (16, 8, 8, 1)) + rng.integers(
        0, 9, (16, 8, 8, 1)
    )
    batch = {**tiny.batch(), "source": source.astype(np.uint8), "target": (source + 20).astype(np.uint8)}
    method = tiny.siamese(name)
    state, step, losses = tiny.state(method), tiny.step(method), []
    for _ in range(40):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])


def test_the_latent_monitor_sees_collapse_without_a_denoiser():
    method, batch = tiny.siamese("simclr"), tiny.batch()
    variables, keys = fresh(method), jax.random.split(jax.random.key(0), 16)
    pooled = method.encode(variables, batch["source"])["pooled"]
    _, s, axes = jnp.linalg.svd(pooled - pooled.mean(0, keepdims=True), full_matrices=False)
    white = axes[:6].T / s[None, :6]  # z varies equally in all directions
    variables["params"]["encoder"]["Dense_0"]["kernel"] = white
    assert warning(monitor(method, variables, batch, keys)) is None
    variables["params"]["encoder"]["Dense_0"]["kernel"] = jnp.outer(white[:, 0], jnp.arange(1.0, 7.0))
    found = monitor(method, variables, batch, keys, parts=4)
    assert float(found["effective_rank"]) < 1.1
    assert "The latent has collapsed" in warning(found)


@pytest.mark.parametrize(
    ("kind", "fields", "key"),
    [
        (SimCLR, {"temperature": 0.0}, r"siamese\.temperature"),
        (VICReg, {"projector": ()}, r"siamese\.projector"),
        (BYOL, {"momentum": 1.0, "total_steps": 1}, r"siamese\.momentum"),
        (BYOL, {"predictor": (8, 7), "total_steps": 1}, r"siamese\.predictor"),
    ],
)
def test_what_is_out_of_range_is_told_by_key(kind, fields, key):
    with pytest.raises(ValueError, match=key):
        kind(encoder=tiny.Encoder(), **fields)


def test_a_method_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.siamese("simclr").temperature = 1.0
