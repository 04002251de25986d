"""Folders of images: the four layouts, what is stored of them, and every way in which one can be wrong."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data.builders import image_folder, store
from data.errors import DataError
from data.sources import open_data_set


def picture(path, seed=0, size=(10, 14), mode="RGB"):
    """Writes a small image of noise, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def labelled(root, splits=("train", "test"), classes=("ant", "bee"), count=3, **options):
    for split in splits:
        for name in classes:
            for i in range(count):
                picture(root / split / name / f"{i}.png", seed=i, **options)
    return root


def message(root) -> str:
    with pytest.raises(DataError) as caught:
        image_folder.recipe(root, "folder")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows_of(recipe, tmp_path, split="train"):
    rows = tfds.builder_from_directory(store.write(recipe, tmp_path / "out")).as_data_source(split)
    return [rows[i] for i in range(len(rows))]


def test_labelled_splits_read_back(tmp_path):
    recipe = image_folder.recipe(labelled(tmp_path / "in"), "pets")
    assert recipe.image_shape == (10, 14, 3)
    rows = rows_of(recipe, tmp_path, "test")
    assert sorted(int(row["label"]) for row in rows) == [0, 0, 0, 1, 1, 1]
    data_set = open_data_set("pets", tmp_path / "out")
    assert data_set.label_names == {"label": ["ant", "bee"]}
    assert data_set.image_shape == (10, 14, 3)


def test_each_image_keeps_its_bytes_and_its_class(tmp_path):
    root = tmp_path / "in"
    files = {
        picture(root / "train" / name / "x.jpg", seed).read_bytes(): name for seed, name in enumerate("abc")
    }
    store.write(image_folder.recipe(root, "folder"), tmp_path / "out")
    source = open_data_set("folder", tmp_path / "out").splits["train"]
    rows = [source[i] for i in range(len(source))]
    found = {row["images"][0]: "abc"[row["labels"]["label"]] for row in rows}
    assert found == files


def test_classes_directly_in_the_folder_are_training_data(tmp_path):
    for name in ("ant", "bee"):
        picture(tmp_path / name / "x.png")
    recipe = image_folder.recipe(tmp_path, "folder")
    assert {name: split.size for name, split in recipe.splits.items()} == {"train": 2}
    assert recipe.features["label"].names == ["ant", "bee"]


@pytest.mark.parametrize("splits", [("",), ("train",), ("train", "test")])
def test_unlabelled_images_have_no_label(tmp_path, splits):
    for split in splits:
        for i in range(4):
            picture(tmp_path / "in" / split / f"{i}.png", seed=i)
    recipe = image_folder.recipe(tmp_path / "in", "folder")
    assert {name: split.size for name, split in recipe.splits.items()} == {s or "train": 4 for s in splits}
    assert [set(row) for row in rows_of(recipe, tmp_path)] == [{"image"}] * 4
    assert open_data_set("folder", tmp_path / "out").labels == {}


def test_folders_inside_class_folders_belong_to_the_class(tmp_path):
    picture(tmp_path / "train" / "ant" / "images" / "deep" / "x.png")
    picture(tmp_path / "train" / "bee" / "y.png")
    listing = image_folder.list_images(tmp_path)
    assert [entry.label for entry in listing["train"]] == ["ant", "bee"]


def test_hidden_files_and_other_files_are_passed_over(tmp_path):
    labelled(tmp_path)
    for name in ("train/.DS_Store", "train/ant/notes.txt", "train/ant/.x.png", "train/ant/.cache/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    assert len(image_folder.list_images(tmp_path)["train"]) == 6


def test_images_of_several_sizes_have_no_common_shape(tmp_path):
    labelled(tmp_path / "in")
    picture(tmp_path / "in" / "train" / "ant" / "wide.png", size=(10, 15))
    recipe = image_folder.recipe(tmp_path / "in", "folder")
    assert recipe.image_shape == (None, None, 3)
    shapes = {row["image"].shape for row in rows_of(recipe, tmp_path)}
    assert shapes == {(10, 14, 3), (10, 15, 3)}


def test_all_grey_images_stay_grey(tmp_path):
    recipe = image_folder.recipe(labelled(tmp_path / "in", mode="L"), "folder")
    assert recipe.image_shape == (10, 14, 1)
    assert rows_of(recipe, tmp_path)[0]["image"].shape == (10, 14, 1)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA"])
def test_mixed_modes_become_rgb(tmp_path, mode):
    labelled(tmp_path / "in")
    picture(tmp_path / "in" / "train" / "ant" / "odd.png", mode=mode)
    recipe = image_folder.recipe(tmp_path / "in", "folder")
    assert recipe.image_shape == (10, 14, 3)
    assert {row["image"].shape for row in rows_of(recipe, tmp_path)} == {(10, 14, 3)}


def test_a_changed_folder_is_another_data_set(tmp_path):
    root = labelled(tmp_path)
    before = image_folder.recipe(root, "folder").fingerprint
    assert image_folder.recipe(root, "other").fingerprint == before
    picture(root / "train" / "bee" / "new.png")
    assert image_folder.recipe(root, "folder").fingerprint != before


def test_missing_folder(tmp_path):
    assert (
        message(tmp_path / "none")
        == f"{tmp_path / 'none'} is not a folder: give --source=DIR, a folder of images"
    )


def test_empty_folder(tmp_path):
    assert f"no images in {tmp_path}" in message(tmp_path)


def test_class_folder_without_images(tmp_path):
    labelled(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    assert f"class folder {tmp_path / 'train' / 'cat'} has no images" in message(tmp_path)


def test_test_split_without_train_split(tmp_path):
    labelled(tmp_path, splits=("test",))
    assert f"{tmp_path} has test/ without train/" in message(tmp_path)


def test_class_in_test_that_train_does_not_know(tmp_path):
    labelled(tmp_path)
    picture(tmp_path / "test" / "cow" / "x.png")
    assert message(tmp_path).startswith(f"{tmp_path / 'test' / 'cow'}: class unknown in train/")


def test_split_of_another_name_beside_train(tmp_path):
    labelled(tmp_path, splits=("train", "val"))
    assert f"{tmp_path} has val/ beside train/" in message(tmp_path)


def test_a_split_written_with_a_capital_is_no_class(tmp_path):
    labelled(tmp_path, splits=("Train", "Test"))
    assert f"{tmp_path / 'Test'}: write it test/" in message(tmp_path)


def test_a_name_that_is_not_text_is_refused(tmp_path):
    labelled(tmp_path)
    picture(tmp_path / "train" / "ant" / "caf\udce9.png")  # the byte E9 alone, as an old disk may hold it
    assert "is not UTF-8" in message(tmp_path) and "rename it" in message(tmp_path)


def test_images_beside_class_folders(tmp_path):
    labelled(tmp_path)
    picture(tmp_path / "train" / "stray.png")
    assert "has both images (stray.png) and folders (ant/)" in message(tmp_path)


def test_labelled_train_with_unlabelled_test(tmp_path):
    labelled(tmp_path, splits=("train",))
    picture(tmp_path / "test" / "x.png")
    assert "one of train/ and test/ has class folders" in message(tmp_path)


def test_file_that_is_no_image(tmp_path):
    labelled(tmp_path)
    (tmp_path / "train" / "ant" / "1.png").write_text("oops")
    assert f"{tmp_path / 'train' / 'ant' / '1.png'} is not a readable image" in message(tmp_path)


def test_image_cut_in_the_middle_stops_the_preparation_and_leaves_nothing(tmp_path):
    root = labelled(tmp_path / "in")
    path = picture(root / "train" / "ant" / "big.jpg", size=(90, 90))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(DataError, match=rf"{path} is not a readable image"):
        store.write(image_folder.recipe(root, "folder"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
