"""Several sources of a scene: all different from each other and from the target, and travelling with their cameras."""

from collections import Counter

import numpy as np
import pytest

from data.draws import Tape
from data.errors import DataError
from data.pipeline import training_batches
from data.views import Views
from tests import prepared_data as prepared

VIEWS = Views(image_size=16, source_size=8, pair="pose", sources=2, cameras=True)
PLAIN = {"image_size": 16, "source_size": 16, "pair": "pose"}


def scene(cameras=4):
    """Camera k is an image of noise that begins with k."""
    images = [prepared.png(prepared.noise(key, 16, 16, 3)) for key in range(cameras)]
    poses = np.stack([prepared.camera_to_world(key) for key in range(cameras)])
    return {
        "images": images,
        "labels": {},
        "index": 7,
        "camera_to_world": poses,
        "intrinsics": prepared.INTRINSICS,
    }


def picked(views, rng):
    made = views.two_views(scene(), rng)
    return (*(int(source.flat[0]) for source in made["source"]), int(made["target"].flat[0]))


def test_sources_and_target_are_different_cameras_and_every_choice_is_as_likely():
    views, rng = Views(**PLAIN, sources=2), np.random.default_rng(0)
    seen = Counter(picked(views, rng) for _ in range(720))
    assert len(seen) == 4 * 3 * 2 and all(len(set(triple)) == 3 for triple in seen)
    assert min(seen.values()) > 12 and max(seen.values()) < 55  # 30 each


def test_one_source_is_chosen_as_it_always_was():
    """first = floor(4 u), then one of the three others, counted from the next one on."""
    for u, v in ((0.1, 0.9), (0.6, 0.0), (0.99, 0.5)):
        made = Views(**PLAIN).two_views(scene(), Tape([u, v]))
        first = int(4 * u)
        assert int(made["source"].flat[0]) == first
        assert int(made["target"].flat[0]) == (first + 1 + int(3 * v)) % 4


def test_every_source_is_augmented_where_that_is_asked_for():
    views = Views(**{**PLAIN, "pair": "pose_augment"}, sources=3, crop_prob=1.0, randaugment_prob=1.0)
    originals = {prepared.noise(key, 16, 16, 3).tobytes() for key in range(4)}
    made = views.two_views(scene(), Tape(np.random.default_rng(0).random(views.draws).tolist()))
    assert made["source"].shape == (3, 16, 16, 3)
    assert len({image.tobytes() for image in made["source"]} - originals) == 3


def test_no_view_takes_more_numbers_than_announced():
    views = Views(**{**PLAIN, "pair": "pose_augment"}, sources=3, crop_prob=1.0, randaugment_prob=1.0)
    views.two_views(scene(), Tape([0.4] * views.draws))


def test_the_plain_pair_has_the_first_images_as_sources():
    pair = VIEWS.plain_pair(scene())
    np.testing.assert_array_equal(pair["source_camera"], scene()["camera_to_world"][:2])
    np.testing.assert_array_equal(pair["target_camera"], scene()["camera_to_world"][0])
    np.testing.assert_array_equal(pair["target"], prepared.noise(0, 16, 16, 3))
    assert pair["source"].shape == (2, 8, 8, 3)
    plain = Views(**PLAIN, sources=2).plain_pair(scene())
    np.testing.assert_array_equal(plain["source"], [prepared.noise(key, 16, 16, 3) for key in range(2)])
    assert set(plain) == {"source", "target"}


def test_the_plain_pair_of_another_image_is_that_image_and_its_camera():
    cameras = scene()["camera_to_world"]
    pair, last = VIEWS.plain_pair(scene(), 1), VIEWS.plain_pair(scene(), len(cameras) - 1)
    np.testing.assert_array_equal(pair["target"], prepared.noise(1, 16, 16, 3))
    np.testing.assert_array_equal(pair["target_camera"], cameras[1])
    np.testing.assert_array_equal(last["source_camera"], cameras[[len(cameras) - 1, 0]])  # and round again


def batches(count, **changes):
    options = {"batch": 4, "seed": 0, "threads": 0} | changes
    with training_batches(prepared.posed(), VIEWS, **options) as stream:
        return [next(stream) for _ in range(count)]


def test_cameras_travel_with_their_sources():
    batch = batches(1)[0]
    assert batch["source"].shape == (4, 2, 8, 8, 3) and batch["target"].shape == (4, 16, 16, 3)
    assert batch["source_camera"].shape == (4, 2, 4, 4) and batch["target_camera"].shape == (4, 4, 4)
    sources = batch["source_camera"][:, :, 0, 3].astype(int)  # where a camera stands is its image's number
    targets = batch["target"][:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(batch["target_camera"][:, 0, 3], targets)
    assert all(len({*row, target}) == 3 for row, target in zip(sources, targets, strict=True))
    assert (sources // 10 == targets[:, None] // 10).all()
    shrunk = [
        [prepared.noise(key, 16, 16, 3).reshape(8, 2, 8, 2, 3).mean((1, 3)) for key in row] for row in sources
    ]
    np.testing.assert_allclose(batch["source"], shrunk, atol=0.51)


def test_batches_are_the_same_for_any_number_of_processes_and_after_a_restart():
    whole = batches(5)
    parts = [batches(5, process_index=p, process_count=2) for p in range(2)]
    for one, *others in zip(whole, *parts, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, np.concatenate([part[name] for part in others]))
    for one, other in zip(whole[3:], batches(2, start_step=3, threads=1), strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_too_many_sources_name_their_key():
    for sources, words in ((0, r"config\.data\.sources = 0: expected 1 or more"), (-1, "sources = -1")):
        with pytest.raises(DataError, match=words):
            Views(**PLAIN, sources=sources)
    with pytest.raises(DataError, match=r"config\.data\.sources = 2: expected .* 1 for pair = 'augment'"):
        Views(**{**PLAIN, "pair": "augment"}, sources=2)
    with pytest.raises(DataError, match=r"config\.data\.sources = 4 .* 5 cameras .*'posed' has 4.*sources=3"):
        training_batches(prepared.posed(), Views(**PLAIN, sources=4), batch=4, seed=0)
