"""Points on spheres, by hand and by numpy's roots; waves of rays; what moving the world must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from soda_jax.nn import rays
from soda_jax.nn.rays import Projecting, Rays
from tests import tiny
from tests.arrays import normal, random_variables

CAMERAS = tiny.cameras(5)
MOTION = np.eye(4, dtype=np.float32)
MOTION[:3, :3] = Rotation.from_rotvec([0.3, -1.2, 0.7]).as_matrix()
MOTION[:3, 3] = [3, -4, 5]


def looking_ahead(*origin):
    """One ray: through the middle of an image taken from `origin`, along z."""
    camera = jnp.eye(4).at[:3, 3].set(jnp.array(origin))[None]
    lens = jnp.array([[[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]]])
    return {"source_camera": jnp.eye(4)[None], "target_camera": camera, "intrinsics": lens}


def drawn(view, cameras, height=1, width=1):
    """What `Rays()` or `Rays().of_sources` gives, compiled."""
    return np.asarray(jax.jit(view, static_argnums=(1, 2))(cameras, height, width), np.float64)


def coordinates(kind, cameras, **changes):
    return drawn(Rays(kind=kind, **changes), cameras)[0, 0, 0]


def test_a_point_of_the_ray_by_hand():
    found = coordinates("sphere", looking_ahead(2, -4, 6), scale=4.0, radius=3.0)
    np.testing.assert_allclose(found, [0.5, -1, 1.5 + 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("origin", "point"),
    [
        ((0, 0, 0), (0, 0, 1)),  # from the centre: the direction itself
        ((0, 0.6, -2), (0, 0.6, -0.8)),  # from outside: the near side
        ((1.2, 0, 0), (0.6, 0, 0.8)),  # from inside: the only way out
        ((0.8, 0, 10), (0.8 / 10.0319, 0, 10 / 10.0319)),  # from outside, pointing away: where it starts
        ((3, -4, -9), (0.6, -0.8, 0)),  # a miss: the nearest it comes
        ((3, -4, 2), (3 / 29**0.5, -4 / 29**0.5, 2 / 29**0.5)),  # a miss, past that
    ],
)
def test_angles_on_the_unit_sphere_by_hand(origin, point):
    """The second of the origins is doubled by the scale, as all of them are."""
    scale = 2.0 if origin == (1.2, 0, 0) else 1.0
    x, y, z = point
    expected = [np.arctan2(x, z) / np.pi, np.arcsin(-y) / np.pi]
    np.testing.assert_allclose(
        coordinates("unit_sphere", looking_ahead(*origin), scale=scale), expected, atol=2e-5
    )


def test_intersections_are_the_smaller_positive_roots():
    rng = np.random.default_rng(0)
    o, d = rng.normal(size=(2, 400, 3)) * [[[0.9]], [[1.0]]]
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    found = rays.on_unit_sphere(*(jnp.asarray(x, jnp.float32)[:, None, None] for x in (o, d)))[:, 0, 0]
    hits = 0
    for point, origin, direction in zip(np.asarray(found), o, d, strict=True):
        roots = np.roots([1, 2 * origin @ direction, origin @ origin - 1])
        positive = [root.real for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
        if positive:
            hits += 1
            np.testing.assert_allclose(point, origin + min(positive) * direction, atol=1e-3)
    assert 100 < hits < 380
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


def test_nothing_jumps_where_a_ray_begins_to_miss():
    near, far = (coordinates("unit_sphere", looking_ahead(x, 0, -3)) for x in (1 - 1e-5, 1 + 1e-5))
    np.testing.assert_allclose(near, far, atol=3e-3)
    near, far = (coordinates("unit_sphere", looking_ahead(0.6, 0, 0.8 + x)) for x in (-1e-5, 1e-5))
    np.testing.assert_allclose(near, far, atol=1e-4)


@pytest.mark.parametrize("encoding", ["sinusoidal", "octaves"])
def test_waves_of_each_coordinate_cosines_first(encoding):
    plain = Rays(kind="sphere", scale=2.0)
    r = drawn(plain, CAMERAS, 2, 3)
    encoded = Rays(kind="sphere", scale=2.0, encoding=encoding, frequencies=4)
    found = drawn(encoded, CAMERAS, 2, 3)
    assert encoded.channels == found.shape[-1] == 3 * 2 * 4
    slow = [1 / (2 * np.pi * 1e-4 * 10000 ** (k / 4)) for k in range(4)]
    omega = slow if encoding == "sinusoidal" else [np.pi, 2 * np.pi, 4 * np.pi, 8 * np.pi]
    angle = r[..., None] * omega
    expected = np.concatenate([np.cos(angle), np.sin(angle)], -1).reshape(5, 2, 3, 24)
    np.testing.assert_allclose(found, expected, atol=2e-3 if encoding == "sinusoidal" else 2e-5)


def moved(cameras, *names):
    """The same cameras, those of these names carried along by MOTION."""
    return {**cameras, **{name: jnp.asarray(MOTION) @ cameras[name] for name in names}}


@pytest.mark.parametrize("kind", rays.COORDINATES)
def test_moving_the_world_changes_no_ray(kind):
    cameras = {**CAMERAS, "source_camera": jnp.stack([CAMERAS["source_camera"], CAMERAS["target_camera"]], 1)}
    see, names = Rays(kind=kind, encoding="octaves", frequencies=2), ("source_camera", "target_camera")
    for view in (see, see.of_sources):
        before, after = drawn(view, cameras, 4, 4), drawn(view, moved(cameras, *names), 4, 4)
        np.testing.assert_allclose(after, before, atol=1e-3 if kind == "unit_sphere" else 3e-5)
    other = drawn(see, moved(cameras, "target_camera"), 4, 4)
    assert np.abs(other - drawn(see, cameras, 4, 4)).max() > 0.1


@pytest.mark.parametrize("kind", rays.COORDINATES)
def test_rays_of_sources_are_relative_to_the_first(kind):
    """The rays of a source are those of a target that stands there."""
    matrices = [CAMERAS["source_camera"], CAMERAS["target_camera"], CAMERAS["target_camera"][::-1]]
    see = Rays(kind=kind)
    found = drawn(see.of_sources, {**CAMERAS, "source_camera": jnp.stack(matrices, 1)}, 2, 3)
    assert found.shape == (5, 3, 2, 3, see.channels)
    for i, matrix in enumerate(matrices):
        alone = drawn(see, {**CAMERAS, "target_camera": matrix}, 2, 3)
        np.testing.assert_allclose(found[:, i], alone, atol=2e-6)


def test_one_source_seen_by_itself_has_the_rays_of_its_lens():
    lens = (1.5, 1.2, 0.4, 0.6)
    found = drawn(Rays(kind="concat").of_sources, rays.alone(lens, 2), 2, 2)
    assert found.shape == (2, 1, 2, 2, 6)
    x, y = (0.25 - 0.4) / 1.5, (0.75 - 0.6) / 1.2  # of the lower left pixel
    expected = np.array([x, y, 1]) / np.sqrt(x * x + y * y + 1)
    np.testing.assert_allclose(found[1, 0, 1, 0], [*expected, 0, 0, 0], atol=1e-6)


def test_a_projected_image_is_a_mixture_and_rays_stay_as_they_are():
    """With W = 1 the network sees what it sees without; with another W, W x."""
    network, x = tiny.Encoder(), normal(2, 8, 8, 5)
    plain = random_variables(network, x, train=False)["params"]
    mixing = Projecting(network, channels=3, features=3)
    mixed = random_variables(mixing, x, train=False)["params"]
    assert set(mixed) == {"rgb", "network"} and set(mixed["rgb"]) == {"kernel"}

    def z(kernel):
        return mixing.apply({"params": {"rgb": {"kernel": kernel}, "network": plain}}, x, train=False)[0]

    w = mixed["rgb"]["kernel"]
    assert w.shape == (1, 1, 3, 3)
    np.testing.assert_allclose(
        z(jnp.eye(3)[None, None]), network.apply({"params": plain}, x, train=False)[0], rtol=1e-5
    )
    other = jnp.concatenate([x[..., :3] @ w[0, 0], x[..., 3:]], -1)
    np.testing.assert_allclose(z(w), network.apply({"params": plain}, other, train=False)[0], atol=1e-5)


@pytest.mark.parametrize(("key", "value"), [("scale", 0.0), ("radius", -1.0), ("frequencies", 0)])
def test_a_length_that_is_not_positive_names_its_key(key, value):
    with pytest.raises(ValueError, match=rf"model\.ray_{key} must be more than 0, found {value}"):
        Rays(**{key: value})
