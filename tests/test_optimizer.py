"""AdamW against its formula, the encoder's rate, the schedules, the average, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from soda_jax.training.optimizer import (
    Ema,
    OptimizerConfig,
    decays,
    ema_update,
    layer_decay,
    learning_rate,
    make_optimizer,
)

PARAMS = {
    "encoder": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)},
    "denoiser": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)},
}


def config(**changes):
    return OptimizerConfig(**{"learning_rate": 0.1, "total_images": 1000, "batch": 10, **changes})


def updated(optimizer, gradients):
    """The parameters after these gradients, each the same number everywhere."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for g in gradients:
        grads = jax.tree.map(lambda p, g=g: jnp.full(p.shape, g), params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(("part", "ratio"), [("denoiser", 1.0), ("encoder", 3.0)])
@pytest.mark.parametrize(("name", "decay"), [("kernel", 0.05), ("bias", 0.0)])
def test_three_updates_follow_the_formula(part, ratio, name, decay):
    gradients = [0.3, -0.2, 0.4]
    found = updated(make_optimizer(config(encoder_ratio=3.0, clip=0.0)), gradients)[part][name]
    p, m, v = 3.0, 0.0, 0.0
    for k, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        p -= 0.1 * ratio * (m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.95**k)) + 1e-8) + decay * p)
    np.testing.assert_allclose(found, np.full(found.shape, p), rtol=1e-5)


def test_the_encoder_moves_faster_by_the_ratio():
    params = updated(make_optimizer(config(encoder_ratio=2.0)), [0.5])
    moved = jax.tree.map(lambda new, old: np.asarray(new - old), params, PARAMS)
    jax.tree.map(
        lambda e, d: np.testing.assert_allclose(e, 2 * d, rtol=1e-5), moved["encoder"], moved["denoiser"]
    )
    assert np.abs(moved["denoiser"]["bias"]).min() > 0.05


def test_each_layer_moves_slower_than_the_one_above_it_by_the_decay():
    rates = layer_decay(0.5, ["encoder/kernel", "encoder/bias"])
    assert rates == {"encoder/kernel": 0.25, "encoder/bias": 0.5}
    found = updated(make_optimizer(config(encoder_ratio=1.0, weight_decay=0.0), rates), [0.5])
    moved = jax.tree.map(lambda new, old: float(jnp.ravel(new - old)[0]), found, PARAMS)
    assert moved["denoiser"]["kernel"] == pytest.approx(-0.1, rel=1e-4)
    assert moved["encoder"]["kernel"] == pytest.approx(-0.025, rel=1e-4)
    assert moved["encoder"]["bias"] == pytest.approx(-0.05, rel=1e-4)


def test_a_rate_is_of_whole_names():
    """That of "encoder/ker" is not that of "encoder/kernel"."""
    found = updated(make_optimizer(config(encoder_ratio=1.0), {"encoder/ker": 0.0, "denoiser": 0.0}), [0.5])
    assert float(jnp.abs(found["encoder"]["kernel"] - 3.0).min()) > 0.01
    np.testing.assert_array_equal(found["denoiser"]["kernel"], PARAMS["denoiser"]["kernel"])


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.1])
def test_a_layer_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=r"finetune\.layer_decay must be above 0, and 1 at most"):
        layer_decay(decay, ["encoder/stem"])


def test_the_encoder_can_be_frozen():
    params = updated(make_optimizer(config(encoder_ratio=0.0)), [0.5, 0.1])
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], PARAMS["encoder"])


@pytest.mark.parametrize(("clip", "norm"), [(1.0, 1.0), (0.0, 2.0 * np.sqrt(12)), (100.0, 2.0 * np.sqrt(12))])
def test_the_moments_see_the_clipped_gradient(clip, norm):
    optimizer = make_optimizer(config(clip=clip))
    grads = jax.tree.map(lambda p: jnp.full(p.shape, 2.0), PARAMS)
    _, state = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    mu = state[1].mu
    np.testing.assert_allclose(optax.tree.norm(mu), 0.1 * norm, rtol=1e-5)


def test_only_arrays_of_two_axes_and_more_decay():
    assert decays(
        {"w": jnp.ones((2, 2)), "conv": jnp.ones((1, 1, 2, 2)), "b": jnp.ones(2), "s": jnp.ones(())}
    ) == {
        "w": True,
        "conv": True,
        "b": False,
        "s": False,
    }


def test_the_rate_warms_up_and_stays():
    rate = learning_rate(config(warmup_images=45))  # 5 steps of 10 images, the last one not full
    found = [float(rate(step)) for step in range(7)]
    np.testing.assert_allclose(found, [0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1], rtol=1e-6)


def test_the_cosine_falls_from_the_end_of_the_warm_up_to_zero():
    rate = learning_rate(config(warmup_images=200, schedule="cosine"))
    np.testing.assert_allclose(
        [rate(s) for s in (9, 20, 60, 100, 150)], [0.05, 0.1, 0.05, 0.0, 0.0], atol=1e-7
    )


def test_lengths_are_images_whatever_the_batch():
    small, large = (learning_rate(config(batch=b, warmup_images=400, schedule="cosine")) for b in (10, 20))
    np.testing.assert_allclose([small(2 * s + 1) for s in (0, 5)], [large(s) for s in (0, 5)], rtol=1e-6)
    np.testing.assert_allclose([small(2 * s) for s in (30, 45)], [large(s) for s in (30, 45)], rtol=1e-6)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert float(learning_rate(config())(0)) == pytest.approx(0.1)


def test_the_average_forgets_its_start():
    assert float(Ema(decay=0.9999).at(jnp.int32(0))) == pytest.approx(0.1)
    assert float(Ema(decay=0.9999).at(jnp.int32(90))) == pytest.approx(0.91)
    assert float(Ema(decay=0.9999).at(jnp.int32(10**6))) == pytest.approx(0.9999)
    assert float(Ema(decay=0.0).at(jnp.int32(10**6))) == 0.0


def test_the_rate_may_change_with_every_epoch_only():
    """Epochs of 4 steps: in each of them the rate of its last step, which is lr min((e + 1) / warm-up, 1)."""
    rate = learning_rate(config(warmup_images=120, hold_images=40))
    found = [float(rate(step)) for step in range(16)]
    expected = [0.1 * min((step // 4 + 1) / 3, 1) for step in range(16)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_cosine_falls_with_every_epoch_as_pytorchs_stepped_by_epochs():
    """Epoch e of 5 has lr (1 + cos(pi e / 5)) / 2, and the first of them the full rate; a warm-up comes before."""
    found = learning_rate(config(total_images=200, hold_images=40, schedule="cosine"))
    expected = [0.1 * (1 + np.cos(np.pi * (step // 4) / 5)) / 2 for step in range(20)]
    np.testing.assert_allclose([float(found(step)) for step in range(20)], expected, rtol=1e-5)
    both = learning_rate(config(total_images=280, hold_images=40, warmup_images=80, schedule="cosine"))
    warm = [*[0.05] * 4, *[0.1] * 4]
    np.testing.assert_allclose([float(both(step)) for step in range(28)], warm + expected, rtol=1e-5)


def test_the_power_ramp_is_the_one_of_the_spec():
    """1 - (1 + n)^(-2/3): 0 at first, 0.99945 after 78,000 updates, and 0.9993 is reached at 54,000."""
    ramp = Ema(decay=0.9999, ramp="power")
    found = [float(ramp.at(jnp.int32(n))) for n in (0, 7, 78_000, 196_000, 10**7)]
    np.testing.assert_allclose(found, [0, 0.75, 0.99945, 0.99970, 0.9999], atol=6e-6)
    low = Ema(decay=0.9993, ramp="power")
    assert float(low.at(jnp.int32(53_000))) < 0.9993 == pytest.approx(float(low.at(jnp.int32(54_100))))
    with pytest.raises(ValueError, match=r"ema\.ramp must be tens\|power\|mmcv, found 'cosine'"):
        Ema(decay=0.9, ramp="cosine")


def test_the_average_is_taken_leaf_by_leaf():
    average = ema_update(
        {"a": jnp.zeros(2), "b": jnp.ones(1)}, {"a": jnp.ones(2), "b": jnp.ones(1)}, jnp.float32(0.75)
    )
    np.testing.assert_allclose(average["a"], [0.25, 0.25])
    np.testing.assert_allclose(average["b"], [1.0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.0}, "optimizer.learning_rate must be more than 0, found 0.0"),
        ({"encoder_ratio": -1.0}, "optimizer.encoder_ratio"),
        ({"b1": 1.0}, r"optimizer.b1 must be in \[0, 1\)"),
        ({"b2": -0.1}, "optimizer.b2"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay"),
        ({"clip": -1.0}, "optimizer.clip must be 0"),
        ({"hold_images": -1}, "optimizer.hold_images must be 0"),
        ({"warmup_images": -1}, "optimizer.warmup_images"),
        ({"batch": 0}, "train.batch"),
        ({"total_images": 0}, "train.images"),
    ],
)
def test_what_cannot_train_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)
