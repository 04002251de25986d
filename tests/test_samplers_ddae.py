"""The samplers of DDAE's authors: DDIM on betas of its own, and DDPM whose noise has the variance beta."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, methods, networks
from experiments.configs import ddae_cifar10_ddpm
from soda_jax.diffusion.inversion import exact
from soda_jax.diffusion.sampler_steps import Sampler, update
from soda_jax.diffusion.samplers import path, sample
from soda_jax.diffusion.schedules import Schedule, betas
from tests import tiny

LINEAR = Schedule(name="linear")
STRAY = Schedule(name="linear", stray=True)
DDIM = Sampler(steps=100, grid="ddae")
SHAPE = (2, 3, 3, 1)
BETAS = np.linspace(1e-4, 0.02, 1001)  # without the 0 before them
ABAR = np.cumprod(1 - BETAS)


def at(schedule, k):
    return schedule.logsnr(jnp.asarray(k / 1000))


def one(value):
    return jnp.full((1, 1, 1, 1), value)


@pytest.mark.parametrize(
    ("k", "abar"), [(0, 0.9999), (1, 0.99978011199), (11, 0.99748946510), (991, 4.78836e-5)]
)
def test_the_schedule_is_not_clean_at_its_beginning(k, abar):
    """prod (1 - beta_j) over j = 0 .. k, worked out by hand; training's has one factor less, and t = 11 at 0.99781."""
    found = jax.nn.sigmoid(at(STRAY, k))
    assert float(found) == pytest.approx(abar, rel=2e-6)
    assert float(jax.nn.sigmoid(at(LINEAR, 11))) == pytest.approx(0.99781, abs=5e-6)
    assert float(jax.nn.sigmoid(at(LINEAR, k))) > float(found)


def test_the_times_are_those_of_the_authors():
    schedule, grid = path(LINEAR, DDIM)
    assert schedule == STRAY
    np.testing.assert_allclose(np.asarray(grid) * 1000, [*range(991, 0, -10), 0], rtol=1e-6)
    np.testing.assert_allclose(
        path(Schedule(name="linear", steps=10), Sampler(steps=5, grid="ddae"))[1] * 10,
        [9, 7, 5, 3, 1, 0],
        rtol=1e-6,
    )
    assert path(LINEAR, Sampler(steps=100))[0] == LINEAR


@pytest.mark.parametrize(
    ("xt", "eps", "t", "s", "expected"),
    [
        (0.5, -0.2, 11, 1, 0.5076405968),
        (0.5, -0.2, 1, 0, 0.5009958798),  # a hundredth of eps is left
        (1.2, 0.1, 991, 981, 1.2007187325),  # x0 would be 159: it is 1, and eps 1.1931
    ],
)
def test_a_step_by_hand(xt, eps, t, s, expected):
    found = update(DDIM, one(xt), one(eps), None, at(STRAY, t), at(STRAY, s))
    assert float(found.squeeze()) == pytest.approx(expected, rel=1e-5)


def walked(eps, noise):
    """The authors' loop, in float64."""
    xt = np.float64(noise)
    for t, s in zip([*range(991, 0, -10)], [*range(981, 0, -10), 0], strict=True):
        x0 = (xt - np.sqrt(1 - ABAR[t]) * eps(xt, t / 1000)) / np.sqrt(ABAR[t])
        x0 = np.clip(x0, -1, 1)
        again = (xt - np.sqrt(ABAR[t]) * x0) / np.sqrt(1 - ABAR[t])
        xt = np.sqrt(ABAR[s]) * x0 + np.sqrt(1 - ABAR[s]) * again
    return xt


def test_a_whole_walk_is_the_authors_loop(key):
    """And the network is told k / T."""
    noise = jax.random.normal(key, SHAPE)
    found = sample(lambda xt, t: jnp.tanh(xt + t[:, None, None, None]), LINEAR, DDIM, noise, key)
    np.testing.assert_allclose(found, walked(lambda xt, t: np.tanh(xt + t), noise), rtol=1e-4, atol=1e-5)
    even = sample(lambda xt, t: jnp.tanh(xt + t[:, None, None, None]), LINEAR, Sampler(steps=100), noise, key)
    assert np.abs(even - found).max() > 1e-3


def test_a_whole_walk_is_that_of_diffusers(key):
    """Theirs, told of 1001 betas, and of the first of them as where to end."""
    torch = pytest.importorskip("torch", reason="parity with diffusers needs PyTorch")
    diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers")
    spacing = {"timestep_spacing": "leading", "steps_offset": 1}
    fields = {"num_train_timesteps": 1001, "trained_betas": BETAS, "set_alpha_to_one": False, **spacing}
    scheduler = diffusers.DDIMScheduler(clip_sample=True, **fields)
    scheduler.set_timesteps(100)
    assert [int(k) for k in scheduler.timesteps] == [*range(991, 0, -10)]
    noise = jax.random.normal(key, SHAPE)
    xt = torch.tensor(np.asarray(noise), dtype=torch.float64)
    for k in scheduler.timesteps:
        eps = torch.tanh(xt + int(k) / 1000)
        xt = scheduler.step(eps, int(k), xt, use_clipped_model_output=True, return_dict=False)[0]
    found = sample(lambda xt, t: jnp.tanh(xt + t[:, None, None, None]), LINEAR, DDIM, noise, key)
    np.testing.assert_allclose(found, xt, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [900, 500, 2])
def test_fresh_noise_has_the_variance_beta(k):
    """Of a step from k to k - 1; posterior's is less. The mean is the same."""
    where = at(LINEAR, k), at(LINEAR, k - 1)
    changes = {}
    for variance in ("beta", "posterior"):
        sampler = Sampler(kind="ddpm", variance=variance)
        still, moved = (update(sampler, one(0.3), one(0.5), one(n), *where) for n in (0.0, 1.0))
        changes[variance], changes[variance + " mean"] = (
            float((moved - still).squeeze()),
            float(still.squeeze()),
        )
    beta = betas("linear", 1000)[k - 1]
    assert changes["beta"] == pytest.approx(np.sqrt(beta), rel=1e-3)
    assert changes["posterior"] < changes["beta"]
    assert changes["beta mean"] == changes["posterior mean"]


@pytest.mark.parametrize("name", ["linear", "cosine", "inverted"])
@pytest.mark.parametrize("steps", [0, 1000])
def test_the_last_step_draws_nothing(name, steps):
    """To t = 0, of schedules in steps and continuous ones."""
    schedule, sampler = Schedule(name=name, steps=steps), Sampler(kind="ddpm", variance="beta")
    where = schedule.logsnr(jnp.asarray(0.001)), schedule.logsnr(jnp.asarray(0.0))
    still, moved = (update(sampler, one(0.3), one(0.5), one(n), *where) for n in (0.0, 1.0))
    assert float(still.squeeze()) == float(moved.squeeze())


def test_config_keys_reach_the_sampler_and_a_net_draws_with_it(key):
    config = ddae_cifar10_ddpm.get_config()
    config.samples.update(grid="ddae")
    assert networks.sampler(config) == Sampler(steps=100, grid="ddae", churn_range=(0.0, 1e9))
    methods.check_hooks(config, methods.method(config, build.batch_spec(config)))
    config.samples.update(sampler="ddpm", grid="even", variance="beta")
    assert networks.sampler(config).variance == "beta"
    method, noise = tiny.ddae(), jax.random.normal(key, (2, 8, 8, 1))
    run = jax.jit(method.generate, static_argnums=2)
    drawn = [
        run(tiny.variables(method), noise, s, key)
        for s in (Sampler(steps=10, grid="ddae"), Sampler(steps=10))
    ]
    assert np.isfinite(drawn[0]).all() and np.abs(drawn[0] - drawn[1]).max() > 1e-4


def test_what_can_be_undone_has_neither():
    for sampler in (Sampler(kind="ddpm", variance="beta"), Sampler(grid="ddae")):
        assert exact(sampler) == Sampler(kind="ddim", clip_x0=False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"variance": "beta"},
            r"samples\.variance: expected 'posterior', or 'beta' with samples\.sampler='ddpm'",
        ),
        ({"variance": "large", "kind": "ddpm"}, r"samples\.variance: .* found 'large' with 'ddpm'"),
        ({"grid": "ddae", "kind": "ddpm"}, r"samples\.grid: .* found 'ddae' with 'ddpm'"),
        ({"grid": "odd"}, r"samples\.grid: expected 'even', or 'ddae'"),
    ],
)
def test_wrong_values_name_their_key(fields, words):
    with pytest.raises(ValueError, match=words):
        Sampler(**fields)


def test_what_does_not_go_with_the_grid_is_told():
    with pytest.raises(
        ValueError, match=r"samples\.steps: expected a divisor of diffusion\.steps = 1000 .* found 30"
    ):
        path(LINEAR, Sampler(steps=30, grid="ddae"))
    for schedule in (Schedule(name="cosine"), Schedule(name="linear", steps=0)):
        with pytest.raises(ValueError, match=r"samples\.grid='ddae' is for diffusion\.schedule='linear'"):
            path(schedule, DDIM)
    config = ddae_cifar10_ddpm.get_config()
    config.samples.grid, config.diffusion.prediction = "ddae", "v"
    with pytest.raises(ValueError, match=r"is for diffusion\.prediction='eps', found 'v'"):
        networks.sampler(config)
