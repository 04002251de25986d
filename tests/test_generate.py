"""Sampling from z: guidance by all or by chosen sections, at weight 0 and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.process import convert
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.methods.masking import Guidance, drop, keep_all_but
from soda_jax.nn.rays import Rays
from tests import tiny

METHOD = tiny.soda()
ONE_STEP = Sampler(steps=1, clip_x0=False)
Z = jax.random.normal(jax.random.key(5), (4, 3, 2))


def generate(sampler=ONE_STEP, method=METHOD, **options):
    variables = tiny.variables(METHOD)
    return method.generate(variables, Z, sampler, jax.random.key(6), (8, 8, 1), **options)


@pytest.mark.parametrize("sections", [None, (1,)])
def test_guidance_of_weight_zero_is_the_conditional_sample(sections):
    np.testing.assert_array_equal(generate(), generate(guidance=Guidance(sections=sections)))


def test_guidance_that_drops_nothing_changes_nothing():
    np.testing.assert_allclose(
        generate(), generate(guidance=Guidance(weight=3.0, sections=())), rtol=1e-5, atol=1e-4
    )  # x0 at t = 1 is eps over alpha, which is 1/285 there


@pytest.mark.parametrize("sections", [None, (0, 2), (1,)])
def test_guidance_drops_the_chosen_sections_only(sections):
    """One step from t = 1, by hand: x0 = (noise - sigma eps) / alpha."""
    noise, t, weight = jax.random.normal(jax.random.key(7), (4, 8, 8, 1)), jnp.ones(4), 0.7
    chosen = (0, 1, 2) if sections is None else sections
    without = np.array(Z)
    without[:, list(chosen)] = 0
    variables = tiny.variables(METHOD)
    with_z, without_z = (METHOD.denoise(variables, noise, t, jnp.asarray(z)) for z in (Z, without))
    eps = (1 + weight) * with_z - weight * without_z
    alpha, sigma = METHOD.schedule.alpha(t)[0], METHOD.schedule.sigma(t)[0]
    found = generate(guidance=Guidance(weight=weight, sections=sections), noise=noise)
    np.testing.assert_allclose(alpha * found, noise - sigma * eps, atol=1e-4)
    assert jnp.abs(found - generate(noise=noise)).max() > 1e-3


def test_the_noise_comes_from_the_key_unless_it_is_given():
    noise = jax.random.normal(jax.random.split(jax.random.key(6))[0], (4, 8, 8, 1))
    np.testing.assert_array_equal(generate(), generate(noise=noise))
    assert jnp.abs(generate() - generate(noise=-noise)).max() > 0.1


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_the_denoiser_speaks_of_eps_whatever_it_predicts(kind):
    xt, t = jax.random.normal(jax.random.key(8), (4, 8, 8, 1)), jnp.full(4, 0.5)
    variables = tiny.variables(METHOD)
    said = METHOD.denoise(variables, xt, t, Z)
    expected = convert(said, kind, "eps", xt, METHOD.schedule.logsnr(t))
    np.testing.assert_allclose(tiny.soda(prediction=kind).denoise(variables, xt, t, Z), expected, rtol=1e-5)
    assert jnp.abs(said - expected).max() > 0.1


def test_every_step_is_reported():
    seen = []
    images = generate(Sampler(steps=3), on_step=seen.append)
    jax.block_until_ready(images)
    jax.effects_barrier()
    assert sorted(seen) == [0, 1, 2]
    assert images.shape == (4, 8, 8, 1) and jnp.abs(images).max() <= 1


def test_sections_to_drop_are_named_by_their_numbers():
    np.testing.assert_array_equal(keep_all_but(3, (2,)), [True, True, False])
    assert not keep_all_but(3, None).any() and keep_all_but(3, ()).all()
    np.testing.assert_array_equal(drop(Z, keep_all_but(3, (2,))[None])[:, 2], 0.0)
    with pytest.raises(ValueError, match=r"guide_sections must lie in 0..2, found \[3\]"):
        generate(guidance=Guidance(sections=(1, 3)))


def test_a_posed_method_draws_the_view_that_the_cameras_ask_for():
    """Moving the world changes nothing; moving the target's camera alone does; no cameras, no drawing."""
    method, cameras = tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays()), tiny.cameras(4)
    variables = tiny.variables(method)

    def drawn(cameras):
        key = jax.random.key(6)
        return method.generate(variables, Z, Sampler(steps=2), key, (8, 8, 1), guidance=0.5, cameras=cameras)

    motion = np.eye(4, dtype=np.float32)
    motion[:3] = [[0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 5]]
    moved = {name: x if name == "intrinsics" else motion @ x for name, x in cameras.items()}
    np.testing.assert_allclose(drawn(moved), drawn(cameras), atol=1e-3)
    other = {**cameras, "target_camera": moved["target_camera"]}
    assert jnp.abs(drawn(other) - drawn(cameras)).max() > 0.05
    with pytest.raises(ValueError, match=r"model\.rays.*no source_camera"):
        drawn(None)


def test_guidance_inside_an_interval_of_t_only():
    """Two steps, t = 1 and t = 0.5: an interval around one of them, around both, around none."""
    sampler = Sampler(steps=2, clip_x0=False)

    def led(*interval):
        return np.asarray(generate(sampler, guidance=Guidance(weight=2.0, interval=interval)))

    none, both = (np.asarray(generate(sampler, guidance=weight)) for weight in (0.0, 2.0))
    np.testing.assert_allclose(led(0.0, 1.0), both, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(led(0.6, 0.9), none, rtol=1e-5, atol=1e-4)
    early, late = led(0.75, 1.0), led(0.25, 0.75)
    for found in (early, late):
        assert np.abs(found - none).max() > 1e-3 and np.abs(found - both).max() > 1e-3
    assert np.abs(early - late).max() > 1e-3


def test_guidance_that_is_rescaled_reaches_the_images():
    plain, rescaled = (generate(guidance=Guidance(weight=2.0, rescale=share)) for share in (0.0, 0.7))
    assert jnp.abs(plain - rescaled).max() > 1e-3


def test_wrong_guidance_names_its_key():
    for interval in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match=r"samples\.guidance_interval must be"):
            Guidance(interval=interval)
    with pytest.raises(ValueError, match=r"samples\.guidance_rescale must be 0 to 1, found 2\.0"):
        Guidance(rescale=2.0)
