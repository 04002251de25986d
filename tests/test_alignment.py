"""Alignment and uniformity: against numpy, at their extremes, and on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.alignment import Meter, apart, on_sphere, uniformity
from soda_jax.parallel.mesh import make_mesh


def batches(f, other, size):
    """Rows in batches, the last one filled up with what must not count."""
    for start in range(0, len(f), size):
        one, two = (
            np.pad(x[start : start + size], ((0, size), (0, 0)), constant_values=7.0)[:size]
            for x in (f, other)
        )
        yield {"f": one, "other": two, "valid": np.arange(start, start + size) < len(f)}


def by(factor):
    return {"by": np.asarray(factor, np.float32)}


def meter(mesh=None):
    return Meter(lambda v, b: ({"f": b["f"] * v["by"]}, {"f": b["other"]}), ("f",), mesh)


def expected(f, other, size):
    """By loops in float64."""
    u, v = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (f.astype(np.float64), other.astype(np.float64))
    )
    total, pairs = 0.0, 0
    for start in range(0, len(f), size):
        for x in (u[start : start + size], v[start : start + size]):
            near = [np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(len(x)) for j in range(i)]
            total, pairs = total + len(near) * np.log(np.mean(near or [1])), pairs + len(near)
    return np.mean(np.sum((u - v) ** 2, axis=1)), total / pairs


@pytest.mark.parametrize("size", [5, 8, 16])
def test_they_are_what_numpy_says(size):
    rng = np.random.default_rng(0)
    f = rng.normal(size=(11, 6)).astype(np.float32)
    other = f + 0.1 * rng.normal(size=f.shape).astype(np.float32)
    found = meter()(by(1e-25), batches(f, other, size))["f"]
    np.testing.assert_allclose((found.align, found.uniform), expected(f, other, size), rtol=1e-5)


def test_the_number_of_devices_does_not_matter():
    rng = np.random.default_rng(1)
    f, other = rng.normal(size=(2, 11, 6)).astype(np.float32)
    one = make_mesh(devices=jax.devices()[:1])
    eight, alone = (meter(mesh)(by(1), batches(f, other, 4))["f"] for mesh in (None, one))
    np.testing.assert_allclose((eight.align, eight.uniform), (alone.align, alone.uniform), rtol=1e-6)


def test_extremes():
    """One point: 0 and 0. Opposite views: 4. An orthonormal frame: every |u - u'|^2 is 2, so -4; two poles: -8."""
    same, valid = jnp.full((6, 5), 1e-30), jnp.ones(6, bool)
    np.testing.assert_allclose(uniformity(on_sphere(same), valid), 0.0, atol=1e-6)
    np.testing.assert_allclose(apart(on_sphere(same), on_sphere(1e30 * same)), 0.0, atol=1e-12)
    np.testing.assert_allclose(apart(on_sphere(same), on_sphere(-same)), 4.0, rtol=1e-6)
    np.testing.assert_allclose(uniformity(on_sphere(3e20 * jnp.eye(6)), valid), -4.0, rtol=1e-6)
    poles = on_sphere(jnp.array([[2.0, 0.0], [-3.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(uniformity(poles, jnp.array([True, True, False])), -8.0, rtol=1e-6)
    np.testing.assert_array_equal(on_sphere(jnp.zeros((2, 3))), 0.0)


def test_a_single_image_has_no_uniformity():
    f = np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match="two images in a batch"):
        meter()(by(1), batches(f, f, 4))


def test_a_rotation_and_a_scale_change_nothing_and_noise_makes_views_differ():
    """Both are of directions alone; more noise on one view moves alignment and leaves the other view's spread."""
    rng = np.random.default_rng(3)
    f, noise = rng.normal(size=(2, 12, 4)).astype(np.float32)
    turn, other = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype(np.float32), f + 0.1 * noise
    once = meter()(by(1), batches(f, other, 6))["f"]
    turned = meter()(by(5), batches(f @ turn, other @ turn, 6))["f"]
    np.testing.assert_allclose((turned.align, turned.uniform), (once.align, once.uniform), atol=1e-5)
    rows = [meter()(by(1), batches(f, f + scale * noise, 6))["f"].align for scale in (0.0, 0.1, 0.3, 1.0)]
    assert rows == sorted(rows) and rows[0] < 1e-10 and rows[-1] > 0.1


def test_points_that_spread_are_more_uniform_than_a_cluster():
    """The more, the fewer they share: on the circle at equal angles (3) has a closed form."""
    angles = 2 * np.pi * np.arange(12) / 12
    circle = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    chords = 2 - 2 * np.cos(angles[1:])
    closed = np.log(np.mean(np.exp(-2 * chords)))
    found = [
        float(uniformity(on_sphere(jnp.asarray(circle + shift)), jnp.ones(12, bool))) for shift in (0, 1, 10)
    ]
    np.testing.assert_allclose(found[0], closed, rtol=1e-5)
    assert found == sorted(found) and found[-1] > -0.1


def test_features_come_back_in_the_order_that_was_asked_for():
    """Which a compiled program would forget: out_10 behind out_2."""
    names = ("out_1", "out_2", "out_10")
    two = Meter(lambda v, b: ({n: b["f"] for n in names}, {n: b["other"] for n in names}), names)
    f = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    assert tuple(two(by(1), batches(f, f, 6))) == names
