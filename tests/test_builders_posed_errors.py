"""Every way in which a folder of objects can be wrong is one line that names the file and what to do."""

import json

import numpy as np
import pytest

from data import prepare
from data.builders import posed_folder, store
from data.builders.posed_folder import Options
from data.errors import DataError
from tests.posed_files import frame, noise_object, picture, write_json


def message(root, **options) -> str:
    with pytest.raises(DataError) as caught:
        posed_folder.recipe(root, "objects", Options(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def objects(tmp_path):
    """Two good objects."""
    return noise_object(tmp_path / "in" / "a").parent, noise_object(tmp_path / "in" / "b")


def edit(folder, change):
    """Changes what an object's file says."""
    path = folder / "transforms_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def no_angle(content):
    del content["camera_angle_x"]


def scaled(content):
    content["frames"][1]["transform_matrix"][0][0] = 2


def gone(content):
    content["frames"][1]["file_path"] = "./images/r_7"


def nameless(content):
    del content["frames"][1]["file_path"]


def no_path(content):
    content["frames"][1]["file_path"] = 7


def repeated(content):
    content["frames"][1]["file_path"] = "images/r_0.png"


def other_lens(content):
    content["frames"][1]["camera_angle_x"] = 0.5


def lonely(content):
    del content["frames"][1:]


def bent(content):
    content["frames"][1]["k1"] = 0.25


def not_an_object(content):
    content["frames"][1] = "r_1"


@pytest.mark.parametrize(
    ("change", "number", "expected"),
    [
        (no_angle, 0, "camera_angle_x is missing: add it"),
        (scaled, 1, "no rigid camera"),
        (gone, 1, "images/r_7 (with or without .png, .jpg, ...): add it, or correct file_path"),
        (nameless, 1, "file_path is missing: add it, or remove the frame"),
        (no_path, 1, "file_path is 7: expected the path of an image"),
        (repeated, 1, "r_0.png is the image of "),
        (other_lens, 1, "an object has one lens for all views"),
        (lonely, 0, "object 'b' has one view; expected 2 or more"),
        (bent, 1, "k1 = 0.25: lens distortion is not modelled; undistort the images"),
        (not_an_object, 1, "expected an object with file_path"),
    ],
)
def test_a_frame_that_is_wrong_is_named(objects, change, number, expected):
    root, folder = objects
    path = edit(folder, change)
    text = message(root)
    assert text.startswith(f"{path}, frame {number}: ") and expected in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{'frames': 1", "is not JSON (Expecting property name"),
        ('{"frames": []}', "has no frames"),
        ('{"camera_angle_x": 1}', "has no frames"),
        ("[1]", "has no frames"),
        (b"\xff\xfe", "is not JSON ('utf-8' codec"),
    ],
)
def test_a_file_that_is_no_transforms_file_is_named(objects, content, expected):
    path = objects[1] / "transforms_train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message(objects[0]).startswith(f"{path} {expected}")


def test_files_that_contradict_each_other_are_named(objects):
    root, folder = objects
    write_json(folder / "transforms.json", [frame("images/r_0")])
    assert f"{folder} has transforms.json beside transforms_train.json: remove one" in message(root)
    (folder / "transforms.json").unlink()
    (folder / "transforms_train.json").rename(folder / "transforms_val.json")
    assert f"{folder} has no transforms_train.json: add it" in message(root)
    (folder / "transforms_val.json").unlink()
    assert f"{folder} has no transforms_train.json and no transforms.json" in message(root)


def test_images_of_several_sizes(objects, tmp_path):
    root, folder = objects
    picture(folder / "images" / "r_1.png", size=(6, 8))
    assert f"{folder / 'images' / 'r_1.png'} has 6 x 8 pixels" in message(root)
    noise_object(folder, size=(12, 12))
    assert "('a' 8 pixels, 'b' 12): give --image_size=N" in message(root)
    noise_object(folder, size=(6, 8))
    assert "is not square (6 x 8 pixels): give --image_size=N" in message(root)
    assert "--image_size=9: " in message(root, image_size=9) and "ask for less" in message(root, image_size=9)
    assert posed_folder.recipe(root, "objects", Options(image_size=6)).image_shape == (6, 6, 3)


def test_a_folder_without_objects(tmp_path):
    assert message(tmp_path / "none").startswith(f"{tmp_path / 'none'} is not a folder: give --source=DIR")
    assert f"no object folders in {tmp_path}" in message(tmp_path)
    picture(tmp_path / "x.png")
    assert "x.png lies beside the object folders" in message(tmp_path)


def test_a_cut_image_stops_the_preparation_and_leaves_nothing(objects, tmp_path):
    path = picture(objects[1] / "images" / "r_1.png", size=(64, 64))
    for k in (0, 2):
        picture(objects[1] / "images" / f"r_{k}.png", size=(64, 64))
    path.write_bytes(path.read_bytes()[:-3000])
    for size in (8, 4):
        recipe = posed_folder.recipe(objects[0], "objects", Options(image_size=size))
        with pytest.raises(DataError, match=rf"{path} is not a readable image"):
            store.write(recipe, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def test_other_flags_are_another_data_set(objects, tmp_path, capsys):
    flags = ["posed_folder", f"--source={objects[0]}", f"--data_dir={tmp_path / 'out'}"]
    assert prepare.main(flags) == 0 and prepare.main(flags) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("already prepared: ")
    assert prepare.main([*flags, "--background=black"]) == 1
    assert "was prepared from it, or a flag has: delete" in capsys.readouterr().err
    assert prepare.main([*flags, "--background=black", "--name=dark"]) == 0


def test_an_angle_that_is_none_is_found_before_anything_is_written(objects, tmp_path, capsys):
    edit(objects[1], lambda content: content.update(camera_angle_x=float(np.pi)))
    assert prepare.main(["posed_folder", f"--source={objects[0]}", f"--data_dir={tmp_path / 'out'}"]) == 1
    assert "expected an angle between 0 and pi" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
