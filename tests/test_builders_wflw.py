"""WFLW from its folder: points stay on what they mark, pairs are mirror images, what is wrong is told by line."""

import functools
import os

import numpy as np
import pytest
from PIL import Image

from data import dense, prepare
from data.builders import store, wflw, wflw_points
from data.dense_info import SEEN, UNLABELLED
from data.dense_views import DenseViews
from data.errors import DataError
from data.pipeline import evaluation_batches, training_batches
from data.sources import open_data_set
from data.views import decode
from tests import wflw_files as files


@pytest.fixture
def folder(tmp_path):
    return files.write_folder(tmp_path / "in")


def mirrored_order():
    order = np.arange(98)
    for a, b in wflw_points.pairs():
        order[[a, b]] = order[[b, a]]
    return order


def centroid(image, point, reach):
    """Of what is bright within so many pixels of a point."""
    x, y = np.rint(point).astype(int)
    top, left = max(0, y - reach), max(0, x - reach)
    part = image[top : y + reach + 1, left : x + reach + 1].astype(float)
    part[part < 24] = 0  # what JPEG leaves in the dark
    rows, columns = np.indices(part.shape)
    return (
        np.array([(part * columns).sum() + left * part.sum(), (part * rows).sum() + top * part.sum()])
        / part.sum()
    )


def check_dots(example, names=files.DOTS, reach=4):
    """Painted discs lie where the points say, to a fraction of a pixel."""
    image = decode(example["image"], 1)
    for number in names:
        point = example["keypoints"][0, number]
        np.testing.assert_allclose(centroid(image, point, reach), point, atol=0.15, err_msg=str(number))


def face_of(folder, points, box, shape, radius=2):
    path = files.write_image(folder, "x.jpg", files.painted(points, *shape, radius))
    return wflw.Face(path, points, np.asarray(box, float), (0,) * 6, "list, line 1")


# Points ------------------------------------------------------------------------------------------------


def test_mirror_images_of_a_symmetric_face_are_the_face():
    face, order = files.symmetric_face(), mirrored_order()
    assert face.shape == (98, 2) and len({tuple(point) for point in face.round(6)}) == 98
    turned = face * [-1, 1]
    np.testing.assert_allclose(turned[order], face, atol=1e-9)
    assert np.abs(turned - face).max() > 50


def test_mirroring_twice_changes_nothing_and_the_rest_lies_in_the_middle():
    order, pairs = mirrored_order(), wflw_points.pairs()
    assert np.array_equal(order[order], np.arange(98)) and len(pairs) == 44
    assert len({number for pair in pairs for number in pair}) == 88 and all(a < b for a, b in pairs)
    alone = np.flatnonzero(order == np.arange(98))
    assert alone.tolist() == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
    assert np.all(files.symmetric_face()[alone, 0].round(6) == 0)


def test_points_are_named_by_part_and_number():
    names = wflw_points.INFO.points
    assert len(set(names)) == len(names) == 98
    ends = {
        0: "contour_0",
        32: "contour_32",
        33: "brow_left_33",
        50: "brow_right_50",
        51: "nose_51",
        59: "nose_59",
    }
    ends |= {60: "eye_left_60", 72: "eye_right_72", 76: "mouth_76", 95: "mouth_95", 97: "pupil_right_97"}
    assert {number: names[number] for number in ends} == ends


# Crops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 101, 256])
@pytest.mark.parametrize("middle", [(150, 140), (56, 45)])
def test_points_of_a_crop_lie_on_the_painted_dots(tmp_path, size, middle):
    """Shrunk and enlarged, with a square inside of the image and one that reaches beyond its corner."""
    points = files.placed(middle)
    box = files.box_of(points).round() + np.array([0, 0, 7, 0])
    face = face_of(tmp_path, points, box, (250, 300), radius=3)
    made = wflw.example(face, size)
    assert (min(wflw.square(face, 250, 300)[:2]) < 0) == (middle[0] < 100)
    assert decode(made["image"], 3).shape == (size, size, 3)
    assert np.all(made["keypoints_seen"] == SEEN)
    check_dots(made, reach=round(size / 175 * 3 + 2))


def test_the_square_is_five_quarters_of_the_box_about_its_middle(tmp_path):
    face = face_of(tmp_path, files.placed((100, 100)), (60, 40, 140, 160), (200, 200))
    left, top, side = wflw.square(face, 200, 200)
    assert side == 150 and abs(left + (side - 1) / 2 - 100) <= 0.5 and abs(top + (side - 1) / 2 - 100) <= 0.5
    ends = wflw.moved(np.array([[left - 0.5, top - 0.5], [left + 149.5, top + 149.5]]), left, top, side, 64)
    np.testing.assert_allclose(ends, [[-0.5, -0.5], [63.5, 63.5]])


def test_beyond_the_border_its_pixels_go_on():
    image = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(
        wflw.cut(image, -2, -1, 4), np.pad(image, ((1, 0), (2, 0)), mode="edge")[:4, :4]
    )
    np.testing.assert_array_equal(wflw.cut(image, 1, 0, 3), image[:3, 1:4])
    np.testing.assert_array_equal(wflw.cut(image, 4, 2, 4), np.pad(image, 4, mode="edge")[6:10, 8:12])


def test_points_outside_of_the_square_are_not_labelled_and_the_scale_is_that_of_the_eyes(tmp_path):
    points = files.placed((100, 100))
    made = wflw.example(face_of(tmp_path, points, (64, 70, 136, 90), (200, 200)), 32)  # of the eyes alone
    side = round(1.25 * 72)
    np.testing.assert_allclose(
        made["keypoint_scale"], [(points[72, 0] - points[60, 0]) * 32 / side], rtol=1e-6
    )
    seen = made["keypoints_seen"][0]
    assert seen[[60, 72, 96, 97]].tolist() == [SEEN] * 4 and seen[[0, 16, 32]].tolist() == [UNLABELLED] * 3


# A folder ----------------------------------------------------------------------------------------------


def test_lines_become_examples_with_their_points_and_attributes(folder, tmp_path, capsys):
    flags = ["wflw", f"--source={folder}", f"--data_dir={tmp_path / 'out'}", "--image_size=128"]
    assert prepare.main(flags) == 0
    assert "prepared wflw (2 train, 1 test, " in (said := capsys.readouterr().out)
    assert all(f"{name} of 2" in said for name in wflw.ATTRIBUTES)
    assert prepare.main(flags) == 0 and "already prepared" in capsys.readouterr().out
    dataset = dense.with_truth(open_data_set("wflw", tmp_path / "out"), "landmarks")
    assert (dataset.image_shape, dataset.views) == ((128, 128, 3), 1)
    assert dataset.labels == dict.fromkeys(wflw.ATTRIBUTES, 2) and dense.info_of(dataset) == wflw_points.INFO
    found = [*dataset.split("train").read(range(2)), dataset.split("test")[0]]
    attributes = [tuple(example["labels"][name] for name in wflw.ATTRIBUTES) for example in found]
    assert sorted(attributes[:2]) == [(0, 1, 0, 0, 0, 1), (1, 0, 0, 1, 0, 0)] and attributes[2] == (
        0,
        0,
        1,
        0,
        1,
        0,
    )
    for example in found:
        check_dots({"image": example["images"][0], "keypoints": example["keypoints"]}, reach=5)
        apart = np.hypot(*(example["keypoints"][0, 60] - example["keypoints"][0, 72]))
        np.testing.assert_allclose(example["scale"], [apart], rtol=1e-5)
    with pytest.raises(DataError, match=r"'wflw' .* has no masks"):
        dense.with_truth(open_data_set("wflw", tmp_path / "out"), "segmentation")


def test_dense_tasks_read_it_and_mirror_it(folder, tmp_path):
    """Of a mirrored image the point called 60 is the left one again, and lies on a dot."""
    store.write(wflw.recipe(folder, "faces", 96), tmp_path / "out")
    dataset = dense.with_truth(open_data_set("faces", tmp_path / "out"), "landmarks")
    known = functools.partial(dense.truth, size=96)
    with evaluation_batches(dataset, "test", batch=1, image_size=96, channels=3, beside=known) as batches:
        plain = next(batches)
    np.testing.assert_allclose(plain["points"], dataset.split("test")[0]["keypoints"], rtol=1e-6)
    shared = {"image_size": 96, "source_size": 96, "task": "landmarks", "mirror": 1.0}
    views = DenseViews(**shared, pairs=wflw_points.INFO.pairs)
    with training_batches(dataset, views, batch=2, seed=0, threads=0) as batches:
        batch = next(batches)
    for image, points in zip(batch["source"], batch["points"], strict=True):
        assert points[60, 0] < points[64, 0] < points[68, 0] < points[72, 0] and points[0, 0] < points[32, 0]
        for number in (0, 16, 32, 60, 72, 76, 82, 96):  # dot 97 is the left pupil's now
            np.testing.assert_allclose(centroid(image[..., 0], points[number], 3), points[number], atol=0.25)


def message(root, build=False) -> str:
    with pytest.raises(DataError) as caught:
        store.write(wflw.recipe(root, image_size=32), root.parent / "out")
    assert "\n" not in str(caught.value)
    assert not build or list((root.parent / "out").iterdir()) == []
    return str(caught.value)


def changed(place, value):
    """A good line with one of its fields replaced, or left out."""
    fields = files.text_of(files.placed((70, 80)), (20, 20, 120, 140), (0,) * 6, "1--One/one_1.jpg").split()
    return " ".join(fields[:place] + ([value] if value is not None else []) + fields[place + 1 :])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            changed(3, None),
            "expected 207 fields (196 coordinates, 4 of the box, 6 attributes, the image), found 206",
        ),
        (changed(5, "x"), "could not convert string to float"),
        (changed(5, "nan"), "expected finite numbers"),
        (changed(198, "20"), "expected x_min y_min x_max y_max of a box, found 20 20 20 140"),
        (changed(203, "2"), "expected attributes of 0 or 1, found 0 0 0 2 0 0"),
        (changed(206, "none.jpg"), "there is no image "),
        (changed(198, "2000"), "its box 20 20 2000 140 does not fit"),
        (changed(197, "-400"), "its box 20 -400 120 140 does not fit"),
        (
            " ".join(["1.0"] * 196) + changed(0, "0")[len(" ".join(changed(0, "0").split()[:196])) :],
            "(points 60 and 72)",
        ),
    ],
)
def test_a_line_that_is_none_is_told_by_its_number(folder, line, words):
    good = changed(0, "10")
    files.write_lists(folder, [good, "", line], [good])
    text = message(folder)
    assert (
        text.startswith(f"{folder / wflw.LISTS / 'list_98pt_rect_attr_train.txt'}, line 3: ")
        and words in text
    )


def test_missing_lists_are_named(folder):
    path = folder / wflw.LISTS / "list_98pt_rect_attr_test.txt"
    path.write_text("\n")
    assert message(folder) == f"{path} is empty: fetch it again"
    path.write_bytes(b"\xff")
    assert f"{path} is not UTF-8 text: it is the list of WFLW's faces" in message(folder)
    path.unlink()
    assert f"{path} cannot be read (No such file or directory)" in message(folder)


def test_a_cut_image_stops_it_and_an_interruption_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    path = folder / wflw.IMAGES / "1--One" / "one_1.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert message(folder, build=True).startswith(f"{path} is not a readable image")
    path.write_bytes(content)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(wflw.images, "encode_jpeg", stopped)
    assert prepare.main(["wflw", f"--source={folder}", f"--data_dir={tmp_path / 'out'}"]) == 130
    assert "nothing was kept" in capsys.readouterr().err and os.listdir(tmp_path / "out") == []


def test_another_size_list_or_image_is_another_data_set(folder):
    found = {wflw.recipe(folder).fingerprint, wflw.recipe(folder, image_size=64).fingerprint}
    path = folder / wflw.LISTS / "list_98pt_rect_attr_test.txt"
    path.write_text(path.read_text().replace("0 0 1 0 1 0", "0 0 1 0 1 1"))
    found |= {wflw.recipe(folder).fingerprint}
    Image.fromarray(np.zeros((180, 150, 3), np.uint8)).save(folder / wflw.IMAGES / "1--One" / "one_1.jpg")
    assert len(found | {wflw.recipe(folder).fingerprint}) == 4
