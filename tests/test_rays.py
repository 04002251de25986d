"""Rays by hand, against numpy and the renderer of views3d; what a motion of the whole world must not change."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.builders import views3d_cameras
from data.views import cameras_of
from soda_jax.nn import rays
from soda_jax.nn.rays import Rays
from tests import tiny

CAMERAS = tiny.cameras(5)


def turned(degrees, origin):
    """A camera that was turned about its y axis, to the right, and moved."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = origin
    return jnp.asarray(matrix, jnp.float32)[None]


def test_rays_by_hand():
    """Focal length of half a side: the image spans -1..1 at depth 1. Two pixels, in the middle of each half."""
    cameras = {
        "source_camera": turned(0, [0, 0, 0]),
        "target_camera": turned(90, [2, 0, 0]),  # looks along +x; its own right is -z
        "intrinsics": jnp.asarray([[[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]]]),
    }
    concat = Rays(kind="concat", scale=4.0)(cameras, 1, 2)
    root = np.sqrt(1.25)
    left, right = np.array([1, 0, 0.5]) / root, np.array([1, 0, -0.5]) / root
    np.testing.assert_allclose(concat[0, 0, :, :3], [left, right], atol=1e-6)
    np.testing.assert_allclose(concat[0, 0, :, 3:], [[0.5, 0, 0]] * 2, atol=1e-6)
    moment = Rays(kind="moment", scale=4.0)(cameras, 1, 2)  # (2, 0, 0) x (1, 0, +-0.5) = (0, -+1, 0)
    np.testing.assert_allclose(moment[0, 0, :, :3], concat[0, 0, :, :3], atol=1e-6)
    np.testing.assert_allclose(moment[0, 0, :, 3:], [[0, -0.25 / root, 0], [0, 0.25 / root, 0]], atol=1e-6)


def test_relative_is_the_inverse_times_the_other():
    first, other = (np.asarray(CAMERAS[name], np.float64) for name in ("source_camera", "target_camera"))
    found = rays.relative(CAMERAS["source_camera"], CAMERAS["target_camera"])
    np.testing.assert_allclose(found, np.linalg.inv(first) @ other, atol=1e-5)


@pytest.mark.parametrize("kind", ["concat", "moment"])
def test_moving_the_world_changes_nothing(kind):
    motion = np.eye(4, dtype=np.float32)
    motion[:3, :3] = Rotation.from_rotvec([0.3, -1.2, 0.7]).as_matrix()
    motion[:3, 3] = [3, -4, 5]
    moved = {
        **CAMERAS,
        **{name: jnp.asarray(motion) @ CAMERAS[name] for name in ("source_camera", "target_camera")},
    }
    before, after = (np.asarray(Rays(kind=kind)(cameras, 4, 4)) for cameras in (CAMERAS, moved))
    np.testing.assert_allclose(after, before, atol=3e-6)
    one_moved = {**CAMERAS, "target_camera": moved["target_camera"]}
    assert np.abs(Rays(kind=kind)(one_moved, 4, 4) - before).max() > 0.1


@pytest.mark.parametrize("kind", ["concat", "moment"])
def test_in_the_frame_of_the_world_sources_are_not_looked_at(kind):
    """The same as from a source that stands at the origin, whichever source it is."""
    world = Rays(kind=kind, frame="world")(CAMERAS, 4, 4)
    origin = {**CAMERAS, "source_camera": jnp.broadcast_to(jnp.eye(4), CAMERAS["source_camera"].shape)}
    np.testing.assert_allclose(world, Rays(kind=kind)(origin, 4, 4), atol=1e-6)
    np.testing.assert_array_equal(world, Rays(kind=kind, frame="world")(origin, 4, 4))
    assert np.abs(world - Rays(kind=kind)(CAMERAS, 4, 4)).max() > 0.1


@pytest.mark.parametrize("encoding", ["none", "octaves"])
def test_both_frames_are_the_world_s_beside_the_source_s(encoding):
    both, *each = (Rays(frame=frame, encoding=encoding) for frame in ("both", "world", "source"))
    expected = np.concatenate([rays(CAMERAS, 4, 4) for rays in each], -1)
    np.testing.assert_array_equal(both(CAMERAS, 4, 4), expected)
    assert both.channels == expected.shape[-1]
    expected = np.concatenate([rays.of_sources(CAMERAS, 4, 4) for rays in each], -1)
    np.testing.assert_array_equal(both.of_sources(CAMERAS, 4, 4), expected)


def test_a_point_on_the_ray_is_seen_in_the_middle_of_its_pixel():
    d = np.asarray(rays.directions(CAMERAS["target_camera"], CAMERAS["intrinsics"], 3, 5), np.float64)
    camera = np.asarray(CAMERAS["target_camera"], np.float64)
    points = camera[:, None, None, :3, 3] + 2.5 * d
    inside = np.einsum(
        "bij,bhwj->bhwi", np.linalg.inv(camera), np.concatenate([points, np.ones((5, 3, 5, 1))], -1)
    )
    seen = np.einsum("bij,bhwj->bhwi", np.asarray(CAMERAS["intrinsics"]), inside[..., :3] / inside[..., 2:3])
    v, u = np.meshgrid((np.arange(3) + 0.5) / 3, (np.arange(5) + 0.5) / 5, indexing="ij")
    np.testing.assert_allclose(seen[..., :2], np.broadcast_to(np.stack([u, v], -1), (5, 3, 5, 2)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(d, axis=-1), 1, atol=1e-6)


def test_the_moment_does_not_depend_on_the_point_of_the_ray():
    found = np.asarray(Rays(kind="moment", scale=2.0)(CAMERAS, 2, 2), np.float64)
    d, camera = found[..., :3], rays.relative(CAMERAS["source_camera"], CAMERAS["target_camera"])
    further = np.asarray(camera)[:, None, None, :3, 3] + 7.0 * d
    np.testing.assert_allclose(found[..., 3:], np.cross(further, d) / 2, atol=1e-5)


def test_the_renderer_of_views3d_casts_the_same_rays():
    """Intrinsics in pixels, as the data set stores them, and those of the batches mean the same camera."""
    side = views3d_cameras.SIDE
    stored = {
        "camera_to_world": np.eye(4, dtype=np.float32)[None],
        "intrinsics": views3d_cameras.intrinsics(),
    }
    cameras = {name: jnp.asarray(x)[None] for name, x in cameras_of(stored, 0, 0, (side, side, 3)).items()}
    found = np.asarray(Rays(kind="concat")(cameras, side, side))[0, ..., :3]
    expected = views3d_cameras.pixel_rays(np.zeros((1, 2)))[:, :, 0].T.reshape(side, side, 3)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"model\.ray_scale must be more than 0, found 0.0"):
        Rays(scale=0.0)
    with pytest.raises(ValueError, match=r"the batch has no target_camera, intrinsics"):
        Rays()({"source_camera": CAMERAS["source_camera"]}, 2, 2)
