"""Every step of our samplers against the schedulers of `diffusers`: same betas, same noise.

Theirs runs in float64, since its 1 - abar_s - variance cancels in float32 where eta is 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.process import corrupt
from soda_jax.diffusion.sampler_steps import Sampler, update
from soda_jax.diffusion.samplers import sample, times
from soda_jax.diffusion.schedules import Schedule, betas

torch = pytest.importorskip("torch", reason="parity with diffusers needs PyTorch: pip install -e .[parity]")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: pip install -e .[parity]")

SHAPE = (2, 3, 4, 4)  # NCHW; the updates are elementwise, so that the axes have no meaning
NAMES = ("inverted", "cosine", "linear")
UPDATE = jax.jit(update, static_argnums=0)  # compiled once for each sampler
torch.set_num_threads(1)  # tiny arrays


def in_double(scheduler, schedule):
    """The scheduler with its one table in float64."""
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.tensor(betas(schedule.name, schedule.steps)), dim=0)
    return scheduler


def double(array):
    return torch.tensor(np.asarray(array), dtype=torch.float64)


def torch_ddim(schedule, sampler):
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=schedule.steps,
        trained_betas=betas(schedule.name, schedule.steps),
        clip_sample=sampler.clip_x0,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    in_double(scheduler, schedule).set_timesteps(sampler.steps)

    def step(eps, k, xt, fresh):
        noise = fresh if sampler.eta else None
        return scheduler.step(
            eps,
            k,
            xt,
            eta=sampler.eta,
            use_clipped_model_output=True,
            variance_noise=noise,
            return_dict=False,
        )[0]

    return scheduler, step


def torch_ddpm(schedule, sampler):
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=schedule.steps,
        trained_betas=betas(schedule.name, schedule.steps),
        clip_sample=sampler.clip_x0,
        variance_type="fixed_large" if sampler.variance == "beta" else "fixed_small",
        timestep_spacing="trailing",
    )
    in_double(scheduler, schedule).set_timesteps(sampler.steps)
    return scheduler, lambda eps, k, xt, fresh: _with_noise(scheduler, eps, k, xt, fresh)


def _with_noise(scheduler, eps, k, xt, fresh):
    """DDPMScheduler draws its noise itself; take that out by its own seed and put `fresh` in its place."""
    drawn = torch.randn(xt.shape, generator=torch.Generator().manual_seed(0), dtype=xt.dtype)
    found = scheduler.step(eps, k, xt, generator=torch.Generator().manual_seed(0), return_dict=False)[0]
    deviation = scheduler._get_variance(k) ** 0.5 if k > 0 else 0.0
    return found + deviation * (fresh - drawn)


def cases():
    for name in NAMES:
        for clip, eta in ((True, 0.0), (False, 0.0), (False, 0.4), (True, 1.0)):
            yield torch_ddim, Schedule(name=name), Sampler(steps=10, eta=eta, clip_x0=clip)
        for clip in (True, False):
            yield torch_ddpm, Schedule(name=name), Sampler(kind="ddpm", steps=10, clip_x0=clip)
        yield torch_ddpm, Schedule(name=name), Sampler(kind="ddpm", steps=10, variance="beta")
    yield torch_ddpm, Schedule(name="linear", steps=50), Sampler(kind="ddpm", steps=50)
    yield torch_ddpm, Schedule(name="linear", steps=50), Sampler(kind="ddpm", steps=50, variance="beta")


def name_of(value):
    if isinstance(value, Schedule):
        return f"{value.name}{value.steps}"
    if isinstance(value, Sampler):
        return f"{value.kind}-eta{value.eta}-clip{value.clip_x0}-{value.variance}"
    return None


def tensors(seed):
    """xt, eps and fresh noise, independent of each other, float32."""
    return np.random.default_rng(seed).normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("twin, schedule, sampler", list(cases()), ids=name_of)
def test_every_update_agrees(twin, schedule, sampler):
    """Each step of the grid on its own, from the same xt: nothing can cancel, nothing can build up."""
    scheduler, step = twin(schedule, sampler)
    grid = times(schedule, sampler.steps)
    logsnr = schedule.logsnr(grid)
    indices = [int(k) for k in scheduler.timesteps]
    assert indices == [round(float(t) * schedule.steps) - 1 for t in grid[:-1]]
    for i, k in enumerate(indices):
        xt, eps, fresh = tensors(i)
        fresh *= (
            k != indices[-1]
        )  # ours draws nothing in the step to 0; with beta, theirs does where steps are skipped
        expected = step(double(eps), k, double(xt), double(fresh))
        found = UPDATE(sampler, *map(jnp.asarray, (xt, eps, fresh)), logsnr[i], logsnr[i + 1])
        magnified = 1 if sampler.clip_x0 else float(1 / schedule.alpha(grid[i]))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * magnified, err_msg=f"step {i}")


@pytest.mark.parametrize("twin, kind", [(torch_ddim, "ddim"), (torch_ddpm, "ddpm")])
def test_whole_walks_agree(twin, kind, key):
    """The whole scan, with our noise carried across and a toy denoiser, eps = tanh(xt + t)."""
    schedule, sampler = Schedule(name="cosine"), Sampler(kind=kind, steps=10)
    scheduler, step = twin(schedule, sampler)
    noise = jax.random.normal(key, SHAPE)
    found = sample(lambda xt, t: jnp.tanh(xt + t[:, None, None, None]), schedule, sampler, noise, key)
    xt = double(noise)
    for i, k in enumerate(int(k) for k in scheduler.timesteps):
        fresh = double(jax.random.normal(jax.random.fold_in(key, i), SHAPE))
        xt = step(torch.tanh(xt + (k + 1) / schedule.steps), k, xt, fresh)
    np.testing.assert_allclose(found, xt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_adding_noise_agrees(name):
    schedule = Schedule(name=name)
    scheduler = torch_ddpm(schedule, Sampler())[0]
    x0, eps, _ = tensors(0)
    index = [3, 700]
    expected = scheduler.add_noise(double(x0), double(eps), torch.tensor(index))
    found = corrupt(schedule, jnp.asarray(x0), jnp.asarray(eps), jnp.asarray([(k + 1) / 1000 for k in index]))
    np.testing.assert_allclose(found, expected, atol=1e-6)
