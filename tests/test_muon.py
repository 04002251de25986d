"""Muon against optax's, a singular value decomposition and by hand; which arrays are its; what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training import state
from soda_jax.training.muon import labels, orthogonal, orthogonal_updates
from soda_jax.training.optimizer import Ema, OptimizerConfig, make_optimizer
from soda_jax.training.step import jit_step
from tests import sharded, tiny

SHAPES = {"tall": (40, 6), "wide": (6, 40), "square": (7, 7), "conv": (3, 3, 4, 8), "twin": (36, 8)}
OF_ALL = "."


def normal(seed, shapes=SHAPES):
    draws = np.random.default_rng(seed)
    return {name: jnp.asarray(draws.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def config(**changes):
    plain = {"name": "muon", "learning_rate": 0.1, "encoder_ratio": 1.0, "clip": 0.0, "weight_decay": 0.0}
    return OptimizerConfig(**{**plain, "total_images": 1000, "batch": 10, "orthogonal": OF_ALL, **changes})


def after(optimizer, params, gradients):
    """The parameters after these gradients."""
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def of_optax(nesterov):
    def axes(params):
        return jax.tree.map(
            lambda p: optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1), params
        )

    return optax.contrib.muon(
        0.1, beta=0.9, nesterov=nesterov, consistent_rms=0.2, muon_weight_dimension_numbers=axes
    )


def test_updates_are_those_of_optax():
    """Which multiplies the matrices themselves; a running mean and a running sum differ by a factor, that goes away."""
    params, gradients = normal(0), [normal(seed) for seed in range(1, 4)]
    found = after(make_optimizer(config(nesterov=False)), params, gradients)
    expected = after(of_optax(nesterov=False), params, gradients)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_two_updates_by_hand(nesterov):
    gradients = [normal(seed, {"kernel": (5, 3)})["kernel"] for seed in (1, 2)]
    found = after(
        make_optimizer(config(nesterov=nesterov)),
        {"kernel": jnp.zeros((5, 3))},
        [{"kernel": g} for g in gradients],
    )
    momentum, kernel = np.zeros((5, 3)), np.zeros((5, 3))
    for g in np.asarray(gradients, np.float64):
        momentum = 0.9 * momentum + g
        u, s, v = np.linalg.svd(g + 0.9 * momentum if nesterov else momentum, full_matrices=False)
        s = s / np.sqrt(np.sum(s**2))
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        kernel -= 0.1 * 0.2 * np.sqrt(5) * (u * s) @ v
    np.testing.assert_allclose(found["kernel"], kernel, atol=1e-5)


@pytest.mark.parametrize("worst", [1.0, 1e-2])
def test_singular_values_come_near_one_and_their_vectors_stay(worst):
    """Down to a hundredth of the largest; the polynomial's own band is 0.68 to 1.13."""
    draws = np.random.default_rng(0)
    u, v = (np.linalg.qr(draws.normal(size=(rows, 6)))[0] for rows in (50, 6))
    m = jnp.asarray((u * np.geomspace(worst, 1.0, 6)) @ v.T, jnp.float32)
    values = u.T @ np.asarray(orthogonal([m])[0], np.float64) @ v
    assert np.diag(values).min() > 0.65 and np.diag(values).max() < 1.15
    np.testing.assert_allclose(values, np.diag(np.diag(values)), atol=1e-4)


def test_an_update_is_as_large_as_adams():
    """Its root mean square is 0.2, whatever the shape and the size of the gradient."""
    momenta = {"small": 1e-6 * normal(0)["tall"], **normal(1), "large": 1e4 * normal(2)["wide"]}
    for update in jax.tree.leaves(orthogonal_updates(momenta)):
        assert float(jnp.sqrt(jnp.mean(update**2))) == pytest.approx(0.2, rel=0.15)


def test_no_gradient_is_no_update():
    zeros = jax.tree.map(jnp.zeros_like, normal(0))
    jax.tree.map(np.testing.assert_array_equal, orthogonal_updates(zeros), zeros)


def test_matrices_of_one_size_do_not_mix():
    momenta = normal(3)
    together = orthogonal_updates(momenta)
    alone = {name: orthogonal_updates({name: m})[name] for name, m in momenta.items()}
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), together, alone)


def test_hidden_kernels_of_the_denoiser_are_muons():
    """By default; what reads the time or z, vectors, and the encoder are not."""
    kernel, conv, vector = jnp.ones((4, 4)), jnp.ones((3, 3, 4, 4)), jnp.ones(4)
    block = {"conv0": {"kernel": conv, "bias": vector}, "norm0": {"latent": {"kernel": kernel}}}
    params = {"denoiser": {"block": block, "time": {"dense_0": {"kernel": kernel}}}}
    params |= {"encoder": {"head": {"kernel": kernel}}}
    found = labels(params, OptimizerConfig(total_images=1, batch=1).orthogonal)
    muons = [
        jax.tree_util.keystr(path) for path, label in jax.tree.leaves_with_path(found) if label == "muon"
    ]
    assert muons == ["['denoiser']['block']['conv0']['kernel']"]


def test_all_other_arrays_are_adams():
    params = {
        "encoder": normal(0, {"kernel": (4, 3)}),
        "denoiser": normal(1, {"kernel": (4, 3), "bias": (3,)}),
    }
    gradients = [jax.tree.map(lambda p, k=k: jnp.sin(k + p), params) for k in range(3)]
    change = {"weight_decay": 0.1, "encoder_ratio": 2.0, "orthogonal": "^denoiser/"}
    muon, adamw = (
        after(make_optimizer(config(**change, name=name)), params, gradients) for name in ("muon", "adamw")
    )
    np.testing.assert_array_equal(muon["encoder"]["kernel"], adamw["encoder"]["kernel"])
    np.testing.assert_array_equal(muon["denoiser"]["bias"], adamw["denoiser"]["bias"])
    assert np.abs(muon["denoiser"]["kernel"] - adamw["denoiser"]["kernel"]).max() > 0.01


def test_weight_decay_is_decoupled_as_adams():
    """With a gradient of nothing, (2) of optimizer.py is the decay alone."""
    params = normal(0, {"kernel": (4, 3)})
    zeros = jax.tree.map(jnp.zeros_like, params)
    found = after(make_optimizer(config(weight_decay=0.5)), params, [zeros])
    np.testing.assert_allclose(found["kernel"], (1 - 0.1 * 0.5) * params["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("^prior/", r"optimizer\.orthogonal must be found in the name of a kernel, found '\^prior/'"),
        ("(", r"optimizer\.orthogonal must be a regular expression, found '\('"),
        ("bias$", r"optimizer\.orthogonal must be found in the name of a kernel"),
    ],
)
def test_an_expression_that_finds_nothing_is_refused(pattern, message):
    params = {"denoiser": normal(0, {"kernel": (4, 3), "bias": (3,)})}
    with pytest.raises(ValueError, match=message):
        make_optimizer(config(orthogonal=pattern)).init(params)


@pytest.mark.parametrize("mesh", ["8 fsdp", "2 x 4"])
def test_the_number_of_devices_changes_no_update(mesh):
    """Matrices that are cut over devices are orthogonal as wholes."""
    optimizer = tiny.optimizer(name="muon", orthogonal="^denoiser/")
    method = tiny.soda()
    found, expected = (
        three_steps(method, optimizer, make_mesh(*size)) for size in (sharded.MESHES[mesh], (1, 1))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


def three_steps(method, optimizer, mesh):
    """Parameters and momenta after them."""
    batch = tiny.batch()
    create = functools.partial(state.create, method, optimizer, spec=tiny.spec(batch))
    abstract = jax.eval_shape(create, jax.random.key(0))
    placed = sharding.state_shardings(abstract, mesh, smallest=sharded.SMALLEST)
    step = jit_step(method, optimizer, Ema(decay=0.99), 1, 0, placed)
    now = jax.device_put(create(jax.random.key(0)), placed)
    for seed in range(3):
        batch = tiny.batch(seed=seed)
        now, _ = step(now, sharding.put_batch(batch, tiny.spec(batch), mesh))
    return jax.device_get((now.params, now.opt_state))
