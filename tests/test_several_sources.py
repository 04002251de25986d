"""SODA with several sources: means, order, motions of the world, tokens, and a target that only one source tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.methods.masking import Condition
from soda_jax.methods.soda import Guidance
from soda_jax.training.latent_monitor import monitor
from tests import tiny
from tests.test_rays_kinds import moved

BATCH = tiny.two_sources(tiny.batch())
KEYS = jax.random.split(jax.random.key(1), 16)
METHOD = tiny.with_sources()
VARIABLES = tiny.variables(METHOD)
CONDITION, LOSS = jax.jit(METHOD.condition), jax.jit(METHOD.loss, static_argnums=3)
TIMES = METHOD.uniform_times(KEYS)
LOSSES, DENOISE = jax.jit(METHOD.losses, static_argnums=5), jax.jit(METHOD.denoise)


@pytest.fixture(scope="module")
def told():
    """Of BATCH."""
    return CONDITION(VARIABLES, BATCH["source"], BATCH)


def test_z_is_the_mean_over_the_sources():
    method = tiny.soda()
    variables = tiny.variables(method)
    latent = jax.jit(method.latent)
    each = [latent(variables, BATCH["source"][:, i]) for i in range(2)]
    np.testing.assert_allclose(latent(variables, BATCH["source"]), (each[0] + each[1]) / 2, atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def three():
    """Sources and cameras of three views."""
    source = jnp.concatenate([BATCH["source"], BATCH["source"][::-1, :1]], 1)
    cameras = jnp.concatenate([BATCH["source_camera"], BATCH["source_camera"][::-1, :1]], 1)
    return {**BATCH, "source": source, "source_camera": cameras}


def test_the_order_of_sources_changes_nothing_but_the_first_camera():
    blind, seeing, views = tiny.soda(), METHOD, three()

    def in_order(method):
        latent = jax.jit(method.latent)

        def z(*order):
            chosen = {name: views[name][:, np.array(order)] for name in ("source", "source_camera")}
            return latent(tiny.variables(method), chosen["source"], {**views, **chosen})

        return z

    for order in ([1, 0, 2], [2, 1, 0]):
        np.testing.assert_allclose(in_order(blind)(*order), in_order(blind)(0, 1, 2), atol=1e-6)
    z = in_order(seeing)
    assert np.abs(z(1, 0, 2) - z(0, 1, 2)).max() > 1e-3
    np.testing.assert_allclose(z(0, 2, 1), z(0, 1, 2), atol=1e-6)


def test_moving_every_camera_changes_no_loss():
    def each(batch):
        return LOSSES(VARIABLES, CONDITION(VARIABLES, batch["source"], batch), batch, KEYS, TIMES, False)

    names = ("source_camera", "target_camera")
    np.testing.assert_allclose(each(moved(BATCH, *names)), each(BATCH), atol=1e-5)
    for name in names:  # one without the other does
        assert np.abs(each(moved(BATCH, name)) - each(BATCH)).max() > 1e-3
    total = [float(LOSS(VARIABLES, batch, KEYS, True)[0]) for batch in (BATCH, moved(BATCH, *names))]
    assert total[1] == pytest.approx(total[0], abs=1e-5)


def test_given_z_the_loss_looks_at_the_sources_of_the_batch(told):
    assert told.context.shape == (16, 2 * 4 * 4, 8)
    expected = LOSSES(VARIABLES, told, BATCH, KEYS, TIMES, False)
    found = jax.jit(METHOD.loss_given_latent)(VARIABLES, told.z, BATCH, KEYS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = LOSSES(VARIABLES, told._replace(context=told.context[::-1]), BATCH, KEYS, TIMES, False)
    assert np.abs(other - expected).max() > 1e-3


def test_the_context_is_dropped_with_the_last_section():
    told = Condition(jnp.ones((2, 3, 2)), context=jnp.ones((2, 5, 4)))
    kept = told.keeping(jnp.array([[False, True, False], [False, False, False]]))
    np.testing.assert_array_equal(kept.z[:, :, 0], [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(kept.context[:, 0, 0], [1, 0])


def test_in_training_too_what_is_dropped_tells_nothing():
    method = tiny.with_sources(mask_all=1 - 1e-9, source_noise=0.0)
    other = {**BATCH, "source": BATCH["source"][::-1]}
    losses = [jax.jit(method.loss)(VARIABLES, batch, KEYS)[0] for batch in (BATCH, other)]
    assert losses[0] == losses[1]
    heard = [LOSS(VARIABLES, batch, KEYS, True)[0] for batch in (BATCH, other)]
    assert abs(heard[0] - heard[1]) > 1e-4


@pytest.mark.parametrize(("sections", "left"), [(None, 0.0), ((1,), 1.0)])
def test_the_unconditional_branch_of_guidance_sees_no_source(told, sections, left):
    """One step from t = 1, by hand, as in test_generate."""
    weight = 0.7
    noise, t = jax.random.normal(jax.random.key(7), (16, 8, 8, 1)), jnp.ones(16)
    view = METHOD.view(BATCH, noise.shape)
    z = told.z.at[:, list(sections or (0, 1, 2))].set(0.0)
    branches = ((told.z, told.context), (z, left * told.context))
    led, unled = (DENOISE(VARIABLES, noise, t, z, view, context) for z, context in branches)
    eps = (1 + weight) * led - weight * unled
    alpha, sigma = METHOD.schedule.alpha(t)[0], METHOD.schedule.sigma(t)[0]
    found = METHOD.generate(
        VARIABLES,
        told.z,
        Sampler(steps=1, clip_x0=False),
        jax.random.key(0),
        (8, 8, 1),
        guidance=Guidance(weight=weight, sections=sections),
        noise=noise,
        cameras=BATCH,
        context=told.context,
    )
    np.testing.assert_allclose(alpha * found, noise - sigma * eps, atol=1e-4)


def test_z_alone_is_not_enough_for_a_denoiser_that_attends(told):
    with pytest.raises(ValueError, match=r"model\.cross_attention=True.*z alone.*SODA\.condition"):
        METHOD.generate(VARIABLES, told.z, Sampler(steps=1), jax.random.key(0), (8, 8, 1), cameras=BATCH)


def test_images_without_a_camera_are_seen_through_the_lens():
    image, lens = BATCH["source"][:, 0], jnp.array([[1.5, 0, 0.4], [0, 1.2, 0.6], [0, 0, 1]])
    cameras = {
        **BATCH,
        "source_camera": BATCH["source_camera"][:, 0],
        "intrinsics": jnp.tile(lens, (16, 1, 1)),
    }
    found = jax.jit(METHOD.encode)(VARIABLES, image)["z"].reshape(16, 3, 2)
    np.testing.assert_allclose(found, CONDITION(VARIABLES, image, cameras).z, atol=1e-5)
    blind = tiny.with_sources(lens=None)
    with pytest.raises(ValueError, match=r"model\.source_rays=True.*model\.source_lens"):
        blind.encode(VARIABLES, image)
    with pytest.raises(ValueError, match=r"found 2 sources of an example, and 1 cameras"):
        METHOD.latent(VARIABLES, BATCH["source"])
    with pytest.raises(ValueError, match=r"model\.source_rays=True needs to know which rays"):
        tiny.with_sources(rays=None)


def test_the_monitor_looks_at_all_sources():
    """In parts as at once."""
    whole, parts = (
        jax.jit(lambda keys, parts=parts: monitor(METHOD, VARIABLES, BATCH, keys, parts))(KEYS)
        for parts in (1, 4)
    )
    assert float(whole["use"]) != 0
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def told_by_the_second(seed):
    """The first source is a pattern, the second as bright as the target is."""
    rng = np.random.default_rng(seed)
    bright = rng.choice([20, 235], 16).astype(np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    pattern = rng.integers(0, 2, (16, 4, 4, 1), np.uint8).repeat(2, 1).repeat(2, 2) * np.uint8(60) + 98
    arrays = {
        "source": np.stack([pattern, bright], 1),
        "target": bright,
        "index": np.arange(16, dtype=np.int32),
    }
    return {name: jnp.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("by", ["z", "context"])
def test_a_target_that_only_the_second_source_tells_is_learned(by):
    """Through z, or through attention alone where the denoiser does not listen to z."""
    listens, aims = by == "z", {"prediction": "x0", "loss_in": "x0", "mask_section": 0.0, "mask_all": 0.0}
    denoiser = tiny.Denoiser(channels=1, listens=listens)
    method = tiny.soda(
        encoder=tiny.Encoder(last_map="map"), denoiser=denoiser, cross_attention=not listens, **aims
    )
    state, step = tiny.state(method), tiny.step(method)
    for i in range(120):
        state, _ = step(state, told_by_the_second(i))
    batch, evaluate = told_by_the_second(1000), jax.jit(method.loss, static_argnums=3)

    def loss(source):
        return float(
            evaluate({"params": state.params, "batch_stats": {}}, {**batch, "source": source}, KEYS, False)[0]
        )

    source = batch["source"]
    dark = source.at[:, 1].set(255 - source[:, 1])
    assert loss(source) < 0.1
    assert loss(dark) > 5 * loss(source)
    assert abs(loss(source.at[:, 0].set(source[::-1, 0])) - loss(source)) < 0.3 * loss(source)
