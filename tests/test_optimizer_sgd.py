"""SGD against PyTorch's and by hand, the two kinds of decay, the rate in steps, and the average as mmcv takes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from soda_jax.methods.base import moving
from soda_jax.training.optimizer import Ema, OptimizerConfig, learning_rate, make_optimizer
from soda_jax.training.step import make_step
from tests import tiny

PARAMS = {"kernel": np.random.default_rng(0).normal(size=(3, 4)), "bias": np.array([0.5, -1.0, 2.0])}
PLAIN = {"name": "sgd", "learning_rate": 0.1, "encoder_ratio": 1.0, "clip": 0.0, "total_images": 200}
TORCH = {"decay": "l2", "decayed": "all", "batch": 10}  # what PyTorch's SGD does


def config(**changes):
    return OptimizerConfig(**{**PLAIN, **TORCH, **changes})


def gradients(count=20):
    """Of a bowl and some noise: they depend on the parameters."""
    noise = np.random.default_rng(1).normal(size=(count, 3, 4))
    return [lambda p, n=n: {"kernel": 0.5 * p["kernel"] + n, "bias": p["bias"] * n[:, 0]} for n in noise]


def ours(c):
    """The parameters after each update."""
    optimizer, update = make_optimizer(c), jax.jit(make_optimizer(c).update)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    state, seen = optimizer.init(params), []
    for gradient in gradients():
        updates, state = update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-4), (0.9, 0.1), (0.8, 0.0)])
def test_twenty_updates_are_those_of_torch(momentum, decay, nesterov):
    torch = pytest.importorskip("torch", reason="the parity of SGD needs PyTorch")
    fields = {"momentum": momentum, "weight_decay": decay, "nesterov": nesterov}
    params = {name: torch.tensor(x, requires_grad=True) for name, x in PARAMS.items()}
    theirs = torch.optim.SGD(params.values(), lr=0.1, **fields)
    falls = torch.optim.lr_scheduler.MultiStepLR(theirs, [10, 15], 0.1)
    for gradient, found in zip(gradients(), ours(config(schedule="steps", **fields)), strict=True):
        grads = gradient({name: x.detach().numpy() for name, x in params.items()})
        for name, x in params.items():
            x.grad = torch.from_numpy(grads[name])
        theirs.step()
        falls.step()
        for name, x in params.items():
            np.testing.assert_allclose(found[name], x.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decayed", ["kernels", "all"])
@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_decay_inside_of_the_gradient_is_remembered_and_beside_it_is_not(decay, decayed):
    found = ours(config(decay=decay, decayed=decayed, weight_decay=0.3, momentum=0.5))[1]
    for name, rate in (("kernel", 0.3), ("bias", 0.3 if decayed == "all" else 0.0)):
        p, b, params = PARAMS[name], 0.0, PARAMS
        for gradient in gradients()[:2]:
            g = gradient(params)[name] + (rate * p if decay == "l2" else 0.0)
            b = 0.5 * b + g
            p = p - 0.1 * (b + (rate * p if decay == "decoupled" else 0.0))
            params = {**params, name: p}
        np.testing.assert_allclose(found[name], p, rtol=1e-5)


def test_adam_with_l2_is_the_adam_of_before_there_was_adamw():
    torch = pytest.importorskip("torch", reason="the parity of Adam needs PyTorch")
    params = {name: torch.tensor(x, requires_grad=True) for name, x in PARAMS.items()}
    theirs = torch.optim.Adam(params.values(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.2)
    for gradient, found in zip(gradients(), ours(config(name="adamw", weight_decay=0.2)), strict=True):
        grads = gradient({name: x.detach().numpy() for name, x in params.items()})
        for name, x in params.items():
            x.grad = torch.from_numpy(grads[name])
        theirs.step()
        np.testing.assert_allclose(found["kernel"], params["kernel"].detach(), rtol=1e-4, atol=1e-5)


def test_the_rate_falls_at_shares_and_at_images():
    by_share = learning_rate(config(schedule="steps", step_at=(0.5, 0.75)))
    by_images = learning_rate(config(schedule="steps", step_at=(100, 150)))
    expected = [0.1] * 10 + [0.01] * 5 + [0.001] * 5
    for rate in (by_share, by_images):
        np.testing.assert_allclose([float(rate(step)) for step in range(20)], expected, rtol=1e-6)
    other = learning_rate(config(schedule="steps", step_at=(95,), step_factor=0.5, warmup_images=40))
    np.testing.assert_allclose([float(other(s)) for s in (0, 3, 9, 10)], [0.025, 0.1, 0.1, 0.05], rtol=1e-6)


def test_a_fall_at_the_end_of_an_epoch_comes_with_the_next_one():
    """With the rate held for epochs of 40 images: 100 images lie in the third of them, 80 between two."""
    within = learning_rate(config(schedule="steps", step_at=(100,), hold_images=40))
    between = learning_rate(config(schedule="steps", step_at=(80,), hold_images=40))
    for rate in (within, between):
        found = [float(rate(step)) for step in range(16)]
        np.testing.assert_allclose(found, [0.1] * 8 + [0.01] * 8, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.999, 0.9, 0.5])
def test_the_ramp_of_mmcv_is_its_formula(decay):
    """new = (1 - m) old + m p, m = min(1 - decay, (1 + i) / (100 + i)): never below a hundredth."""
    ema = Ema(decay=decay, ramp="mmcv")
    for i in (0, 5, 40, 98, 500):
        m = min(1 - decay, (1 + i) / (100 + i))
        assert float(ema.at(jnp.int32(i))) == pytest.approx(1 - m, abs=1e-6)
    assert (float(ema.at(jnp.int32(0))) == pytest.approx(decay)) == (decay > 0.99)


@pytest.mark.parametrize("averaged", [True, False])
def test_statistics_are_averaged_or_those_of_the_newest_step(averaged):
    """Five steps, by the formula; the parameters are averaged in both cases."""
    method, ema = tiny.supervised(), Ema(decay=0.9, ramp="mmcv", batch_stats=averaged)
    step = jax.jit(make_step(method, tiny.optimizer(), ema, 1, seed=0))
    state = jax.jit(functools.partial(tiny.create_state, method=method))(jax.random.key(0))
    means = [np.ravel(x) for x in (state.params["heads"]["kernel"], mean_of(state.batch_stats))]
    for i in range(5):
        state, _ = step(state, tiny.batch(seed=i))
        m = min(0.1, (1 + i) / (100 + i))
        new = [np.ravel(x) for x in (state.params["heads"]["kernel"], mean_of(state.batch_stats))]
        means = [(1 - m) * a + m * b for a, b in zip(means, new, strict=True)]
        if not averaged:
            means[1] = new[1]
    np.testing.assert_allclose(np.ravel(state.ema_params["heads"]["kernel"]), means[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(mean_of(state.ema_batch_stats), means[1], rtol=1e-5, atol=1e-7)
    assert (
        np.abs(mean_of(state.ema_batch_stats) - mean_of(moving(state.batch_stats))).max() == 0
    ) != averaged


def mean_of(batch_stats):
    return np.asarray(batch_stats["encoder"]["BatchNorm_0"]["mean"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "lion"}, r"optimizer\.name must be adamw\|muon\|sgd, found 'lion'"),
        ({"schedule": "linear"}, r"optimizer\.schedule must be constant\|cosine\|steps"),
        ({"decay": "none"}, r"optimizer\.decay must be decoupled\|l2"),
        ({"decayed": "biases"}, r"optimizer\.decayed must be kernels\|all"),
        ({"momentum": 1.0}, r"optimizer\.momentum must be in \[0, 1\)"),
        ({"nesterov": True, "momentum": 0.0}, r"optimizer\.nesterov must be False without muon or sgd"),
        ({"nesterov": True, "name": "adamw"}, r"optimizer\.nesterov must be False without muon or sgd"),
        ({"step_at": ()}, r"optimizer\.step_at must be rising shares"),
        ({"step_at": (0.75, 0.5)}, r"optimizer\.step_at must be rising shares"),
        ({"step_at": (0.5, 50)}, r"optimizer\.step_at must be rising shares"),
        ({"step_factor": 0.0}, r"optimizer\.step_factor must be in \(0, 1\]"),
    ],
)
def test_what_cannot_train_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)
