"""EDM's augmentation: its filter, its maps, how often each is drawn, and what is told of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods import edm_augment
from soda_jax.methods.edm_augment import LABELS, SYM6, Augment, scaled, shifted, turned, warp
from tests import tiny

COUNT = 4000


def smooth(height=24, width=24, channels=2):
    """A few waves, which a bilinear map at twice the resolution hardly hurts."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(0.3 * x + 0.2 * y + k) * np.cos(0.25 * y - 0.1 * k * x) for k in range(channels)]
    return jnp.asarray(np.stack(waves, -1), jnp.float32)


@pytest.fixture(scope="module")
def drawn():
    """(flips, labels, matrices) of many keys, each operation half of the time."""
    keys = jax.random.split(jax.random.key(0), COUNT)
    draw = jax.jit(jax.vmap(lambda key: Augment(probability=0.5).drawn(key, 24, 32)))
    return [np.asarray(x) for x in draw(keys)]


def test_the_filter_is_an_orthogonal_wavelets():
    assert SYM6.sum() == pytest.approx(np.sqrt(2), abs=1e-12)
    for k in range(6):
        assert np.dot(SYM6[2 * k :], SYM6[: 12 - 2 * k]) == pytest.approx(float(k == 0), abs=1e-11)


@pytest.mark.parametrize("shape", [(24, 24, 1), (16, 20, 3), (32, 32, 3)])
def test_without_a_map_an_image_stays_what_it_is(shape):
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, shape), jnp.float32)
    np.testing.assert_allclose(warp(image, jnp.eye(3)), image, atol=1e-5)


def test_moves_by_whole_pixels_move_pixels():
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (16, 20, 3)), jnp.float32)
    found = warp(image, shifted(jnp.float32(3.0), jnp.float32(-2.0)))
    np.testing.assert_allclose(found[2:, :-3], image[:-2, 3:], atol=1e-5)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_turns_by_right_angles_are_those_of_numpy(quarter):
    image = smooth()
    found = warp(image, turned(jnp.float32(quarter * np.pi / 2)))
    inside = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(found[inside], np.rot90(image, quarter)[inside], atol=2e-2)


def test_twice_as_large_is_what_an_independent_map_gives():
    """scipy's cubic splines at the places that the matrix names, away from the edges."""
    ndimage = pytest.importorskip("scipy.ndimage")
    image, matrix = smooth(), turned(jnp.float32(0.4)) @ scaled(jnp.float32(0.5), jnp.float32(0.7))
    found = warp(image, matrix)
    y, x = np.mgrid[:24, :24] - 11.5
    m = np.asarray(matrix)
    columns, rows = (m[i, 0] * x + m[i, 1] * y + 11.5 for i in range(2))
    expected = np.stack(
        [ndimage.map_coordinates(np.asarray(image[..., c]), [rows, columns], order=3) for c in range(2)], -1
    )
    np.testing.assert_allclose(found[4:-4, 4:-4], expected[4:-4, 4:-4], atol=2e-2)


def test_far_beyond_the_edges_an_image_is_mirrored():
    image = smooth()
    found = warp(image, shifted(jnp.float32(24.0), jnp.float32(0.0)))
    about_the_last_column = image[:, 22:0:-1]
    np.testing.assert_allclose(found[:, :22], about_the_last_column, atol=3e-2)
    assert np.abs(np.asarray(warp(image, shifted(jnp.float32(500.0), jnp.float32(0.0))))).max() < 1.1


def test_each_is_drawn_as_often_as_it_should_be(drawn):
    """A coin for the flip; the rest half of the time, the upside-down coin a quarter."""
    flips, labels, _ = drawn
    assert flips[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    assert flips[:, 1].mean() == pytest.approx(0.25, abs=0.03)
    on = labels != 0
    assert on[:, 2].mean() == pytest.approx(0.5, abs=0.03)
    for pair in (on[:, 3:5], on[:, 5:7], on[:, 7:9]):
        assert pair.any(1).mean() == pytest.approx(0.5, abs=0.03)
        np.testing.assert_array_equal(pair[:, 0], pair[:, 1])
    together = np.corrcoef(np.stack([on[:, 1], on[:, 2], on[:, 3], on[:, 5], on[:, 7]]).astype(float))
    assert np.abs(together - np.eye(5)).max() < 0.06


def test_sizes_of_what_is_drawn(drawn):
    _, labels, _ = drawn
    assert labels[labels[:, 2] != 0, 2].std() == pytest.approx(1, abs=0.05)
    angles = np.arctan2(labels[:, 4], labels[:, 3] + 1)[labels[:, 4] != 0]
    assert angles.std() == pytest.approx(np.pi / np.sqrt(3), abs=0.05)
    assert np.hypot(labels[:, 5], labels[:, 6])[labels[:, 5] != 0].std() == pytest.approx(0.603, abs=0.04)
    assert labels[labels[:, 7] != 0, 7:].std() == pytest.approx(1, abs=0.05)


def test_labels_tell_the_map_but_for_whether_it_stretches_or_shrinks(drawn):
    """The inverse of move, stretch, turn and scale, made of the labels: (a cos r, a sin r) leaves a's sign open."""
    _, labels, matrices = drawn
    signs = []
    for told, found in zip(labels[:100].astype(np.float64), matrices[:100], strict=True):
        errors = [np.abs(found - np.linalg.inv(forward_of(told, sign))).max() for sign in (1, -1)]
        assert min(errors) < 2e-4
        signs.append(errors[0] < errors[1])
    assert 0 < sum(signs) < 100


def forward_of(told, sign):
    """The affine map of these labels, around the middle of an image of 24 x 32 pixels."""
    _, _, scale, cosine, sine, along, across, *move = told
    size, angle = np.hypot(along, across), np.arctan2(across, along)
    axis = np.array([np.cos(angle), np.sin(angle)])
    lengths, kept = 2 ** (0.2 * sign * size), np.outer(axis, axis)
    forward = np.eye(3)
    turn = np.array([[cosine + 1, -sine], [sine, cosine + 1]])
    forward[:2, :2] = (lengths * kept + (np.eye(2) - kept) / lengths) @ turn * 2 ** (0.2 * scale)
    forward[:2, 2] = 0.125 * np.array(move) * (32, 24)
    return forward


def test_never_but_for_the_flip():
    """With p = 0 (nearly) labels are zeros but for the first, and images are themselves or mirrored."""
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)), jnp.float32)
    found, labels = Augment(probability=1e-9)(jax.random.split(jax.random.key(1), 8), images)
    assert set(np.asarray(labels[:, 0]).tolist()) == {0.0, 1.0} and not np.any(labels[:, 1:])
    expected = np.where(np.asarray(labels[:, 0])[:, None, None, None] > 0, images[:, :, ::-1], images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_is_altered_by_its_own_key_alone():
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 16, 16, 3)), jnp.float32)
    keys, augment = jax.random.split(jax.random.key(1), 6), Augment(probability=0.5)
    whole, part = augment(keys, images), augment(keys[3:5], images[3:5])
    for all_of_them, some in zip(whole, part, strict=True):
        np.testing.assert_allclose(all_of_them[3:5], some, atol=1e-5)


def test_the_net_is_trained_on_altered_images_and_told_of_them():
    """The loss changes with the augmentation, and with what is told; without training there is none."""
    net = {"label_dim": LABELS, "dropout": 0.0}
    method = tiny.ddae("edm", net=net, augment=Augment(probability=0.5))
    plain, batch = dataclasses.replace(method, augment=None), tiny.batch()
    variables = tiny.variables(method)
    keys = jax.random.split(jax.random.key(0), len(batch["target"]))
    losses = [float(m.loss(variables, batch, keys, train=True)[0]) for m in (method, plain)]
    assert abs(losses[0] - losses[1]) > 1e-3
    still = [float(m.loss(variables, batch, keys, train=False)[0]) for m in (method, plain)]
    assert still[0] == still[1]
    silent = jax.tree.map(jnp.copy, variables)
    silent["params"]["denoiser"]["time"]["labels"]["kernel"] *= 0.0
    assert abs(float(method.loss(silent, batch, keys, train=True)[0]) - losses[0]) > 1e-6


@pytest.mark.parametrize("probability", [-0.1, 0.0, 1.1])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match=r"ddae\.augment must be 0 \(off\) to 1"):
        edm_augment.Augment(probability=probability)
