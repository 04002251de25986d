"""A data set looked at from nearer: what is cut off, and that cameras, masks and keypoints stay where they belong."""

import math
import pickle
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from data import augment, dense
from data.builders import store, views3d
from data.dense_info import UNLABELLED
from data.errors import DataError
from data.image_files import open_folder
from data.pipeline import check_fit, evaluation_batches, training_batches
from data.sources import open_data_set
from data.views import Views, decode
from data.zoom import zoomed
from soda_jax.nn.rays import Rays
from tests import prepared_data

PLAN = views3d.Plan(train=3, test=2, views=4)
ZOOM, NEAR, OFF = 4 / 3, 48, 8  # of 64 pixels; pixels that are left, and gone on each side
MIDDLE = slice(OFF, OFF + NEAR)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoom")
    store.write(views3d.recipe(PLAN), folder)
    return open_data_set("views3d", folder)


@pytest.fixture(scope="module")
def near(whole):
    return zoomed(whole, ZOOM)


def pair(dataset, **changes):
    views = Views(**{"image_size": NEAR, "source_size": NEAR, "pair": "pose", "cameras": True} | changes)
    return views.two_views(dataset.split("train")[1], np.random.default_rng(0))


def rays(made, size, kind="moment"):
    cameras = {
        name: jnp.asarray(made[name])[None] for name in ("source_camera", "target_camera", "intrinsics")
    }
    return np.asarray(Rays(kind=kind, frame="world")(cameras, size, size)[0])


def test_the_middle_of_every_image_is_left(whole, near):
    assert near.image_shape == (NEAR, NEAR, 3) and len(near.split("test")) == PLAN.test
    for split, row in (("train", 2), ("test", 0)):
        for a, b in zip(whole.split(split)[row]["images"], near.split(split)[row]["images"], strict=True):
            np.testing.assert_array_equal(decode(b, 3), decode(a, 3)[MIDDLE, MIDDLE])


def test_rays_pass_through_the_pixels_that_they_passed_through_before(whole, near):
    """A pixel sees what it saw: the same colour at the end of the same ray."""
    far, close = pair(whole, image_size=64, source_size=64), pair(near)
    np.testing.assert_array_equal(close["target"], far["target"][MIDDLE, MIDDLE])
    np.testing.assert_allclose(rays(close, NEAR), rays(far, 64)[MIDDLE, MIDDLE], atol=1e-6)


def test_half_of_the_pixels_see_the_same_part_of_the_scene(near):
    """Scaled further, corners and all: the mean of four rays' ends is that of the pixel they make."""
    full, half = rays(pair(near), NEAR), rays(pair(near, image_size=NEAR // 2), NEAR // 2)
    directions = full[..., :3].reshape(NEAR // 2, 2, NEAR // 2, 2, 3).mean((1, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    np.testing.assert_allclose(half[..., :3], directions, atol=1e-5)


@pytest.mark.parametrize("task", dense.TASKS)
def test_masks_and_keypoints_are_cut_as_their_images_are(whole, near, task):
    outside = 0
    for row in range(PLAN.train):
        far, close = (dense.with_truth(found, task).split("train")[row] for found in (whole, near))
        for which in range(PLAN.views):
            a, b = dense.truth(far, which, 64), dense.truth(close, which, NEAR)
            if task == "segmentation":
                np.testing.assert_array_equal(b["mask"], a["mask"][MIDDLE, MIDDLE])
                continue
            np.testing.assert_allclose(b["points"], a["points"] - OFF, atol=1e-5)
            gone = ((b["points"] < -0.5) | (b["points"] > NEAR - 0.5)).any(-1)
            np.testing.assert_array_equal(b["seen"], np.where(gone, UNLABELLED, a["seen"]))
            assert b["scale"] == a["scale"]
            outside += gone.sum()
    assert task == "segmentation" or outside < PLAN.train * PLAN.views


def test_images_need_not_be_square_or_alike(tmp_path):
    for name, shape in (("a", (30, 20, 3)), ("b", (9, 50, 3)), ("c", (1, 1, 3))):
        (tmp_path / f"{name}.png").write_bytes(prepared_data.png(prepared_data.noise(0, *shape)))
    found = zoomed(open_folder(tmp_path, 3), 2.0).split("test")
    shapes = [decode(found[row]["images"][0], 3).shape for row in range(3)]
    assert shapes == [(15, 10, 3), (4, 25, 3), (1, 1, 3)]
    np.testing.assert_array_equal(
        decode(found[0]["images"][0], 3), prepared_data.noise(0, 30, 20, 3)[7:22, 5:15]
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_of_what_is_left(near, workers):
    views = Views(image_size=32, source_size=NEAR, pair="pose", cameras=True)
    with training_batches(near, views, batch=2, seed=0, workers=workers) as batches:
        made = next(batches)
    assert made["source"].shape == (2, NEAR, NEAR, 3) and made["target"].shape == (2, 32, 32, 3)
    np.testing.assert_allclose(made["intrinsics"][:, 0, 0], 104 / NEAR, rtol=1e-6)
    with evaluation_batches(near, "test", batch=4, image_size=NEAR, channels=3) as batches:
        image = next(batches)["image"][1]
    np.testing.assert_array_equal(image, decode(near.split("test")[0]["images"][1], 3))


def test_a_zoomed_data_set_is_another(whole, near):
    """Whatever was made from the one is not taken for the other's: their manifests differ. Zoom 1 changes nothing."""
    assert zoomed(whole, 1) is whole
    assert len({whole.manifest, near.manifest, zoomed(whole, 2).manifest}) == 3
    again = pickle.loads(pickle.dumps(near.split("train")))
    assert again[0]["images"] == near.split("train")[0]["images"]


@pytest.mark.parametrize("zoom", [0.5, 0.0, -2.0, 64.5, math.nan, math.inf])
def test_a_zoom_that_leaves_nothing_is_refused(whole, zoom):
    with pytest.raises(
        DataError, match=r"config\.data\.zoom = .*: expected 1 \(whole images\) or more, and 64"
    ):
        zoomed(whole, zoom)


def test_latents_have_no_middle(whole):
    with pytest.raises(DataError, match=r"config\.data\.zoom = 2: .* holds latents: set it to 1"):
        zoomed(replace(whole, latents=True), 2)


@pytest.mark.parametrize("size", [96, 60, 48, 32, 25, 24, 20, 16, 9, 7])
def test_posed_images_of_a_size_are_taken_exactly_where_each_pixel_stays_on_its_ray(near, size):
    """A ramp shows where pixels lie: it is scaled to the ramp of their middles, or something was cut off at a side."""
    views = Views(image_size=size, source_size=NEAR, pair="pose", cameras=True)
    ramp = np.broadcast_to(5 * np.arange(NEAR, dtype=np.uint8), (NEAR, NEAR))
    middles = 5 * ((np.arange(size) + 0.5) * NEAR / size - 0.5)
    inside = (middles >= 0) & (middles <= 5 * (NEAR - 1))
    off = np.abs(augment.centre_crop(ramp, size)[:, inside] - middles[inside]).max() / (5 * NEAR / size)
    if off < 0.15:  # of a pixel: rounding, to whole grey levels
        check_fit(near, views)
        return
    with pytest.raises(
        DataError, match=rf"image_size = {size} does not fit the posed 48 x 48 .* more than 24"
    ):
        check_fit(near, views)
