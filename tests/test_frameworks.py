"""DDPM and EDM: each in its own words against what it comes to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.frameworks import DDPM, EDM, Level, told
from soda_jax.diffusion.process import corrupt_to
from soda_jax.diffusion.schedules import Schedule

LEVELS = {
    "ddpm": DDPM(schedule=Schedule(name="linear")),
    "ddpm_v": DDPM(schedule=Schedule(name="cosine"), prediction="v"),
    "edm": EDM(schedule=Schedule(name="edm", steps=18)),
}


def draws(count=4):
    x0, eps = (jax.random.normal(jax.random.key(i), (count, 4, 4, 2)) for i in range(2))
    return 0.5 * x0, eps, jax.random.split(jax.random.key(2), count)


def right_answer(framework, x0, eps, level):
    """The network's answer that has no loss, found by bisection-free algebra: losses are |answer - target|^2."""
    zeros = jnp.zeros_like(x0)
    gradient = jax.grad(lambda answer: framework.losses(answer, x0, eps, level).sum())(zeros)
    return -gradient * np.prod(x0.shape[1:]) / 2


@pytest.mark.parametrize("name", LEVELS)
def test_the_answer_without_loss_is_the_noise(name):
    framework = LEVELS[name]
    x0, eps, keys = draws()
    level = framework.draw(keys)
    answer = right_answer(framework, x0, eps, level)
    np.testing.assert_allclose(framework.losses(answer, x0, eps, level), np.zeros(4), atol=1e-9)
    xt = corrupt_to(level.logsnr, x0, eps)
    np.testing.assert_allclose(framework.eps(answer, xt, level), eps, rtol=2e-3, atol=2e-3)


def test_ddpm_is_told_the_time_and_sees_xt():
    framework = LEVELS["ddpm"]
    level = framework.at(jnp.asarray([0.011, 1.0]))
    np.testing.assert_allclose(level.told, [0.011, 1.0])
    xt = jnp.ones((2, 4, 4, 1))
    assert framework.seen(xt, level) is xt and framework.clean(xt, level) is xt
    drawn = np.asarray(framework.draw(jax.random.split(jax.random.key(0), 4000)).told)
    assert drawn.min() >= 0.001 and drawn.max() == 1.0 and abs(drawn.mean() - 0.5) < 0.02


def test_edm_is_the_preconditioning_of_its_paper():
    """Table 1 of arXiv 2206.00364, in its own variables x = x0 + s n."""
    framework, (x0, eps, _) = LEVELS["edm"], draws(3)
    s = np.array([0.05995, 0.5, 10.0], np.float32)
    level = told(jnp.asarray(-2 * np.log(s)))
    np.testing.assert_allclose(level.told, np.log(s) / 4, rtol=1e-6)
    np.testing.assert_allclose(level.told[0], -0.7036, atol=1e-4)
    wide = s[:, None, None, None]
    x, total = x0 + wide * eps, wide**2 + 0.25
    xt = corrupt_to(level.logsnr, x0, eps)
    np.testing.assert_allclose(framework.seen(xt, level), x / np.sqrt(total), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        framework.seen(framework.clean(x0, level), level), x0 / np.sqrt(total), rtol=1e-5, atol=1e-6
    )
    answer = jax.random.normal(jax.random.key(5), x0.shape)
    denoised = 0.25 / total * x + wide * 0.5 / np.sqrt(total) * answer
    weight = total[:, 0, 0, 0] / (s * 0.5) ** 2
    expected = weight * np.mean(np.square(denoised - x0), axis=(1, 2, 3))
    np.testing.assert_allclose(framework.losses(answer, x0, eps, level), expected, rtol=1e-4)
    np.testing.assert_allclose(framework.eps(answer, xt, level), (x - denoised) / wide, rtol=1e-3, atol=1e-3)


def test_edm_draws_log_normal_levels_whatever_the_schedule():
    keys = jax.random.split(jax.random.key(0), 20_000)
    for steps in (0, 18):
        level = EDM(schedule=Schedule(name="edm", steps=steps)).draw(keys)
        log_s = -np.asarray(level.logsnr) / 2
        assert abs(log_s.mean() + 1.2) < 0.03 and abs(log_s.std() - 1.2) < 0.03


def test_the_level_of_an_example_is_its_keys_own():
    keys = jax.random.split(jax.random.key(0), 6)
    for framework in LEVELS.values():
        whole, part = framework.draw(keys), framework.draw(keys[2:4])
        assert isinstance(whole, Level)
        np.testing.assert_array_equal(whole.logsnr[2:4], part.logsnr)
