"""The losses of distillation against small cases by hand, loops of numpy, and PyTorch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.distances import (
    AT_WEIGHT,
    angles,
    attention,
    distance,
    distances,
    length,
    relational_distance,
    resized,
)


def maps(seed=0, b=4, side=4, c=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(b, side, side, c)).astype(np.float32))


def test_the_hint_compares_means_over_the_pixels():
    s, projected, h = maps(0), maps(1, c=5), maps(2, c=5)
    found = distance("hint", s, projected, h)
    expected = np.mean((np.asarray(projected).mean((1, 2)) - np.asarray(h).mean((1, 2))) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    shuffled = projected[:, ::-1, :, :]  # where on the map something is does not matter
    np.testing.assert_allclose(distance("hint", s, shuffled, h), found, rtol=1e-5)


def test_the_dense_hint_compares_pixels_and_scales_the_student():
    h = maps(2, c=5)
    np.testing.assert_allclose(distance("hint_dense", maps(), h + 0.5, h), 0.25, rtol=1e-5)
    small = jnp.ones((4, 2, 2, 5)) * 0.3
    np.testing.assert_allclose(
        distance("hint_dense", maps(), small, jnp.zeros((4, 4, 4, 5))), 0.09, rtol=1e-5
    )


def test_attention_by_hand():
    """Two pixels with squares 1 + 4 and 0: a = (5, 0), A = (1, 0) but for the 1e-6; the other map the other way."""
    s = jnp.asarray([[[[1.0, 2.0], [0.0, 0.0]]]])
    h = jnp.asarray([[[[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]]]])
    np.testing.assert_allclose(attention(s), [[[1.0, 0.0]]], atol=1e-6)
    np.testing.assert_allclose(distance("at", s, s, h), AT_WEIGHT * 1.0, rtol=1e-5)
    np.testing.assert_allclose(distance("at", s, s, 7 * s), 0.0, atol=1e-6)


def test_distances_and_angles_by_hand():
    """A right angle at the origin, sides 3 and 4: distances 3, 4, 5, of mean 4."""
    u = jnp.asarray([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(distances(u) * 4, [[0, 3, 4], [3, 0, 5], [4, 5, 0]], rtol=1e-6)
    found = np.asarray(angles(u))
    assert found[0, 1, 2] == pytest.approx(0.0, abs=1e-6)  # at the origin
    assert found[1, 0, 2] == pytest.approx(0.6, abs=1e-6) and found[2, 0, 1] == pytest.approx(0.8, abs=1e-6)
    assert found[0, 1, 1] == pytest.approx(1.0) and found[0, 0, 1] == 0.0


def huber(x):
    return np.where(np.abs(x) < 1, 0.5 * x**2, np.abs(x) - 0.5)


def test_relations_are_the_loops_of_the_equation():
    s, h = (np.random.default_rng(i).normal(size=(5, n)).astype(np.float32) for i, n in ((0, 3), (1, 6)))

    def pairs(u):
        d = np.array([[np.linalg.norm(a - b) for b in u] for a in u])
        return d / d[d > 0].mean()

    def triples(u):
        found = np.zeros((5, 5, 5))
        for j, i, k in itertools.product(range(5), repeat=3):
            if i != j and k != j:
                a, b = u[i] - u[j], u[k] - u[j]
                found[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return found

    expected = 25 * huber(pairs(s) - pairs(h)).mean() + 50 * huber(triples(s) - triples(h)).mean()
    np.testing.assert_allclose(relational_distance(jnp.asarray(s), jnp.asarray(h)), expected, rtol=1e-4)


def test_relations_do_not_care_for_scale_turns_and_shifts():
    rng = np.random.default_rng(3)
    u = rng.normal(size=(6, 4))
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    moved = jnp.asarray(5 * u @ turn + 2, jnp.float32)
    assert float(relational_distance(jnp.asarray(u, jnp.float32), moved)) < 1e-6
    assert float(relational_distance(jnp.asarray(u, jnp.float32), moved[::-1])) > 1


def test_gradients_are_finite_where_rows_are_equal():
    u = jnp.ones((3, 4)).at[0].set(0.0)
    gradient = jax.grad(lambda u: relational_distance(u, jnp.arange(12.0).reshape(3, 4)))(u)
    assert np.all(np.isfinite(gradient))
    assert float(jax.grad(lambda x: length(x)[0])(jnp.zeros(3))[0]) == 0.0


def test_maps_are_resized_linearly():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    assert resized(x, jnp.zeros((1, 2, 2, 9))) is x
    np.testing.assert_allclose(resized(x, jnp.zeros((1, 4, 4, 1)))[0, 0, :, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_attention_and_relations_are_pytorchs():
    """The lines of the papers, in PyTorch."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    s, h = np.asarray(maps(4)), np.asarray(maps(5))
    ts, th = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (s, h))

    def at(x):
        flat = x.pow(2).sum(1).flatten(1)
        return flat / (flat.norm(dim=1, keepdim=True) + 1e-6)

    expected = 1000 * (at(ts) - at(th)).pow(2).mean()
    np.testing.assert_allclose(distance("at", *map(jnp.asarray, (s, s, h))), expected.numpy(), rtol=1e-4)

    def rkd(x, y):
        def pairs(u):
            d = (u[:, None] - u[None]).norm(dim=2)
            return d / d[d > 0].mean()

        def triples(u):
            e = f.normalize(u[None] - u[:, None], dim=2)
            return torch.bmm(e, e.transpose(1, 2))

        return 25 * f.smooth_l1_loss(pairs(x), pairs(y)) + 50 * f.smooth_l1_loss(triples(x), triples(y))

    expected = rkd(ts.mean((2, 3)), th.mean((2, 3)))
    np.testing.assert_allclose(distance("rkd", *map(jnp.asarray, (s, s, h))), expected.numpy(), rtol=1e-4)
