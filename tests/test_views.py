"""Two views of one example: drawn independently, as often as configured, of the sizes asked for."""

from collections import Counter

import numpy as np
import pytest

from data import augment
from data.draws import Tape
from data.errors import DataError
from data.views import Views, cameras_of, decode, plain_view
from tests import prepared_data as prepared

PLAIN = {"crop_prob": 0.0, "randaugment_prob": 0.0}
CROP = {"crop_prob": 1.0, "flip_prob": 0.0, "randaugment_prob": 0.0}


def views(**changes) -> Views:
    return Views(**({"image_size": 24, "source_size": 32, "channels": 3} | changes))


def example(*shape: int, cameras: int = 1) -> dict:
    """Camera k is an image of noise that begins with k."""
    images = [prepared.png(prepared.noise(key, *(shape or (28, 28, 3)))) for key in range(cameras)]
    return {"images": images, "labels": {}, "index": 7}


def made(config: Views, source: dict | None = None, seed: int = 0) -> dict:
    return config.two_views(source or example(), np.random.default_rng(seed))


def test_views_have_the_sizes_and_types_asked_for():
    pair = made(views())
    assert pair["source"].shape == (32, 32, 3) and pair["target"].shape == (24, 24, 3)
    assert pair["source"].dtype == pair["target"].dtype == np.uint8
    assert pair["index"] == 7 and pair["index"].dtype == np.int32


@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_converted(stored, channels):
    pair = made(views(channels=channels), example(28, 28, stored))
    assert pair["source"].shape == (32, 32, channels)
    plain = plain_view(example(28, 28, stored)["images"][0], 28, channels)
    image = prepared.noise(0, 28, 28, stored)
    if stored == 3 and channels == 1:
        grey = image @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(plain[:, :, 0], grey, atol=1.5)
    else:
        np.testing.assert_array_equal(plain, np.broadcast_to(image, plain.shape))


def test_the_same_numbers_make_the_same_views():
    first, again, other = made(views(), seed=1), made(views(), seed=1), made(views(), seed=2)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["source"] != other["source"]).any() and (first["target"] != other["target"]).any()


def test_source_and_target_are_drawn_independently():
    config = views(image_size=32)
    pairs = [made(config, seed=seed) for seed in range(20)]
    assert sum((pair["source"] == pair["target"]).all() for pair in pairs) <= 2
    assert len({pair["source"].tobytes() for pair in pairs}) > 15
    assert len({pair["target"].tobytes() for pair in pairs}) > 15


def test_without_augmentation_both_are_the_plain_image():
    pair = made(views(**PLAIN, image_size=28, source_size=28))
    np.testing.assert_array_equal(pair["source"], prepared.noise(0, 28, 28, 3))
    np.testing.assert_array_equal(pair["target"], pair["source"])


def test_the_target_can_be_left_plain():
    for seed in range(8):
        pair = made(views(augment_target=False, image_size=28, source_size=28), seed=seed)
        np.testing.assert_array_equal(pair["target"], prepared.noise(0, 28, 28, 3))
    assert (pair["source"] != pair["target"]).any()


@pytest.mark.parametrize("prob", [0.0, 0.3, 0.95, 1.0])
def test_a_flip_comes_with_a_crop_only(prob, monkeypatch):
    """Crops with probability p, flips with p x 0.5: SODA's recipe has one coin for both."""
    seen = Counter()
    resized, flipped = augment.resized_crop, augment.flip
    monkeypatch.setattr(augment, "resized_crop", lambda *a: seen.update(["crop"]) or resized(*a))
    monkeypatch.setattr(augment, "flip", lambda image: seen.update(["flip"]) or flipped(image))
    config, rng = views(crop_prob=prob, randaugment_prob=0.0, source_size=28), np.random.default_rng(0)
    image = decode(example()["images"][0], 3)
    for _ in range(600):
        config.source_view(image, 28, rng)
    assert abs(seen["crop"] / 600 - prob) < 0.06
    assert abs(seen["flip"] / 600 - prob / 2) < 0.06


@pytest.mark.parametrize("prob", [0.0, 0.65, 1.0])
def test_randaugment_comes_as_often_as_asked(prob, monkeypatch):
    seen = Counter()
    monkeypatch.setattr(augment, "rand_augment", lambda image, rng, ops, m: seen.update([(ops, m)]) or image)
    config, rng = (
        views(randaugment_prob=prob, randaugment_ops=3, randaugment_magnitude=5),
        np.random.default_rng(0),
    )
    image = decode(example()["images"][0], 3)
    for _ in range(400):
        config.source_view(image, 28, rng)
    assert abs(seen[3, 5] / 400 - prob) < 0.08 and set(seen) <= {(3, 5)}


def test_crops_obey_the_scale():
    """On a ramp from left to right, the spread of a crop's values tells its width."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
    config, rng = (
        views(**CROP, channels=1, crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0)),
        np.random.default_rng(0),
    )
    spreads = {int(np.ptp(config.source_view(ramp, 100, rng))) for _ in range(20)}
    assert spreads == {99}


@pytest.mark.parametrize("size", [28, 14])
def test_with_a_pad_the_crop_is_a_part_of_the_padded_view(size):
    """Of the view as large as it is asked for; black where nothing was. Every place is met, the plain view too."""
    config, rng = views(**CROP, crop_pad=2, source_size=size), np.random.default_rng(0)
    image = decode(example()["images"][0], 3)
    wide = np.pad(augment.centre_crop(image, size), ((2, 2), (2, 2), (0, 0)))
    places = {(i, j): wide[i : i + size, j : j + size].tobytes() for i in range(5) for j in range(5)}
    found = Counter(config.source_view(image, size, rng).tobytes() for _ in range(500))
    assert set(found) == set(places.values()) and min(found.values()) > 5


def test_a_padded_crop_is_flipped_as_another_is():
    image = decode(example(28, 28, 1)["images"][0], 1)
    config = views(**CROP | {"flip_prob": 1.0}, crop_pad=3, channels=1)
    plain = views(**CROP, crop_pad=3, channels=1)
    made = [c.source_view(image, 28, np.random.default_rng(5)) for c in (plain, config)]
    assert made[0].shape == made[1].shape == (28, 28, 1)
    np.testing.assert_array_equal(made[1], made[0][:, ::-1])


def test_a_flip_is_a_mirror_image():
    ramp = np.broadcast_to(np.arange(28, dtype=np.uint8), (28, 28))
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    config = views(**CROP | whole | {"flip_prob": 1.0}, channels=1, source_size=28)
    np.testing.assert_array_equal(
        config.source_view(ramp, 28, np.random.default_rng(0))[:, :, 0], ramp[:, ::-1]
    )


def test_two_cameras_are_two_different_ones():
    config, rng, seen = views(pair="pose", image_size=16, source_size=16), np.random.default_rng(0), Counter()
    scene = example(16, 16, 3, cameras=4)
    for _ in range(600):
        pair = config.two_views(scene, rng)
        seen[int(pair["source"].flat[0]), int(pair["target"].flat[0])] += 1
    assert set(seen) == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert min(seen.values()) > 25 and max(seen.values()) < 80  # 50 each


def test_cameras_are_not_augmented_unless_asked():
    scene = example(16, 16, 3, cameras=4)
    originals = {prepared.noise(key, 16, 16, 3).tobytes() for key in range(4)}
    sizes = {"image_size": 16, "source_size": 16}
    for seed in range(5):
        pair = made(views(pair="pose", **sizes), scene, seed)
        assert {pair["source"].tobytes(), pair["target"].tobytes()} <= originals
    changed = [made(views(pair="pose_augment", **sizes), scene, seed) for seed in range(5)]
    assert sum(pair["source"].tobytes() in originals for pair in changed) <= 1


def test_the_same_image_twice_is_one_of_the_scene_untouched_under_one_camera():
    config, rng, seen = (
        views(pair="same", image_size=16, source_size=16, cameras=True),
        np.random.default_rng(0),
        set(),
    )
    matrices = np.stack([np.full((4, 4), k, np.float32) for k in range(5)])
    scene = {
        **example(16, 16, 3, cameras=5),
        "camera_to_world": matrices,
        "intrinsics": np.eye(3, dtype=np.float32),
    }
    for _ in range(60):
        pair = config.two_views(scene, rng)
        np.testing.assert_array_equal(pair["source"], pair["target"])
        np.testing.assert_array_equal(pair["source_camera"], pair["target_camera"])
        which = int(pair["source_camera"][0, 0])
        np.testing.assert_array_equal(pair["source"], plain_view(scene["images"][which], 16, 3))
        seen.add(which)
    assert seen == set(range(5))
    single = views(pair="same").two_views(example(), np.random.default_rng(0))
    np.testing.assert_array_equal(single["target"], plain_view(example()["images"][0], 24, 3))


def test_the_plain_pair_is_the_first_image_under_its_own_camera():
    scene = example(16, 16, 3, cameras=4)
    scene |= {
        "camera_to_world": np.arange(64, dtype=np.float32).reshape(4, 4, 4),
        "intrinsics": prepared.INTRINSICS,
    }
    pair = views(pair="pose", image_size=8, source_size=16, cameras=True).plain_pair(scene)
    assert pair["target"].shape == (8, 8, 3)
    np.testing.assert_array_equal(pair["source"], prepared.noise(0, 16, 16, 3))
    for name in ("source_camera", "target_camera"):
        np.testing.assert_array_equal(pair[name], scene["camera_to_world"][0])
    assert set(views(pair="pose").plain_pair(scene)) == {"source", "target"}


def test_intrinsics_do_not_depend_on_the_resolution():
    """The same camera at twice the pixels: twice the focal length, and the middle of the first pixel moves."""
    fine = np.array([[40, 0, 15.5], [0, 48, 15.5], [0, 0, 1]], np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32), (1, 1, 1))
    low, high = (
        cameras_of({"camera_to_world": poses, "intrinsics": k}, 0, 0, (side, side, 3))["intrinsics"]
        for k, side in ((prepared.INTRINSICS, 16), (fine, 32))
    )
    np.testing.assert_allclose(low, high, rtol=1e-6)


def test_one_camera_of_a_scene_can_be_augmented_like_a_single_image():
    scene = example(16, 16, 3, cameras=4)
    firsts = set()
    for seed in range(30):
        pair = made(views(pair="augment", **PLAIN, image_size=16, source_size=16), scene, seed)
        np.testing.assert_array_equal(pair["source"], pair["target"])
        firsts.add(int(pair["source"].flat[0]))
    assert firsts == {0, 1, 2, 3}


@pytest.mark.parametrize("pair", ["augment", "pose_augment"])
@pytest.mark.parametrize("ops", [0, 2, 7])
def test_no_view_takes_more_numbers_than_announced(pair, ops):
    """Numbers that make every crop fail and every coin fall take the most."""
    config = views(pair=pair, randaugment_ops=ops, crop_prob=1.0, randaugment_prob=1.0, crop_scale=(1.0, 1.0))
    scene = example(20, 90, 3, cameras=3)
    config.two_views(scene, Tape([0.4] * config.draws))
    with pytest.raises(StopIteration):
        config.two_views(scene, Tape([0.4] * (config.draws // 2)))


def test_a_damaged_image_is_refused():
    whole = example()["images"][0]
    for broken in (b"", b"no image", whole[:40]):
        with pytest.raises(DataError, match=r"cannot be decoded.*config\.data\.dir"):
            decode(broken, 3)


@pytest.mark.parametrize(
    "key, value",
    [
        ("image_size", 0),
        ("source_size", -1),
        ("channels", 2),
        ("crop_prob", 1.1),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.5, 2.0)),
        ("crop_ratio", (2.0, 1.0)),
        ("crop_pad", -1),
        ("flip_prob", -0.1),
        ("randaugment_prob", float("nan")),
        ("randaugment_ops", -1),
        ("randaugment_magnitude", 31),
        ("randaugment_magnitude", 9.5),
        ("pair", "poses"),
    ],
)
def test_a_wrong_value_names_its_key(key, value):
    with pytest.raises(DataError, match=rf"config\.data\.{key} = .*expected") as error:
        views(**{key: value})
    assert "\n" not in str(error.value)
