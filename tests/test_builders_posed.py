"""Posed folders: views3d written as NeRF would comes back pixel by pixel, camera by camera; splits of objects."""

import json

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.builders import posed_folder, store, views3d_cameras
from data.builders.posed_folder import Options
from data.pipeline import evaluation_batches, training_batches
from data.sources import open_data_set
from data.views import Views, decode
from experiments.job import batches
from tests import posed_files, small_job
from tests.posed_files import frame, noise_object, picture, rendered_object, write_json

VIEWS = {0: 3, 1: 2, 2: 4}  # object -> its views
PAIR = Views(image_size=64, source_size=64, pair="pose", cameras=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data_dir with three rendered objects, of which the list says that o1 is test."""
    root = tmp_path_factory.mktemp("posed")
    for number, views in VIEWS.items():
        rendered_object(root / "in" / f"o{number}", number, views)
    (root / "in" / "test.txt").write_text("o1\n\n")
    assert prepare.main(["posed_folder", f"--source={root / 'in'}", f"--data_dir={root / 'out'}"]) == 0
    return root / "out"


def read(root, tmp_path, **options):
    """Prepares a folder and opens it."""
    recipe = posed_folder.recipe(root, "objects", Options(**options))
    store.write(recipe, tmp_path / "out")
    return open_data_set("objects", tmp_path / "out")


def splits(root, **options) -> dict[str, list[str]]:
    """Split -> its objects."""
    listing = posed_folder.list_views(root, options.get("test_share"))
    return {split: list(objects) for split, objects in listing.items()}


def test_a_data_set_of_objects_is_described(place):
    dataset = open_data_set("posed_folder", place)
    assert dataset.image_shape == (64, 64, 3) and dataset.cameras and dataset.labels == {}
    assert dataset.views == 2, "the fewest that an object has, of any split"
    assert {split: len(source) for split, source in dataset.splits.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(("split", "numbers"), [("train", (0, 2)), ("test", (1,))])
def test_pixels_and_cameras_come_back_as_they_were(place, split, numbers):
    source = open_data_set("posed_folder", place).split(split)
    found = {len(example["images"]): example for example in source.read(range(len(source)))}
    assert found.keys() == {VIEWS[number] for number in numbers}
    for number in numbers:
        images, cameras = posed_files.scene(number, VIEWS[number])
        example = found[VIEWS[number]]
        np.testing.assert_array_equal([decode(encoded, 3) for encoded in example["images"]], images)
        np.testing.assert_array_equal(example["camera_to_world"], cameras)
        np.testing.assert_allclose(example["intrinsics"], views3d_cameras.intrinsics(), rtol=1e-6)


def test_pairs_have_the_cameras_of_their_images(place):
    """Of objects with 3 and 4 views: every picture is found, and its camera beside it."""
    shown = {
        image.tobytes(): camera
        for number in (0, 2)
        for image, camera in zip(*posed_files.scene(number, VIEWS[number]), strict=True)
    }
    dataset, seen = open_data_set("posed_folder", place), set()
    with training_batches(dataset, PAIR, batch=16, seed=0, threads=0) as stream:
        for pair in (next(stream), next(stream)):
            np.testing.assert_allclose(pair["intrinsics"][:, 0, 0], views3d_cameras.FOCAL / 64, rtol=1e-6)
            np.testing.assert_allclose(pair["intrinsics"][:, :2, 2], 0.5, rtol=1e-6)
            for which in ("source", "target"):
                for image, camera in zip(pair[which], pair[f"{which}_camera"], strict=True):
                    np.testing.assert_array_equal(camera, shown[image.tobytes()])
                    seen.add(image.tobytes())
            assert (pair["source"] != pair["target"]).any((1, 2, 3)).all()
    assert seen == shown.keys(), "also views beyond the fewest"


def test_batches_are_the_same_for_any_number_of_processes(place):
    dataset = open_data_set("posed_folder", place)
    with training_batches(dataset, PAIR, batch=4, seed=3, threads=0) as whole:
        batch = next(whole)
    for process in (0, 1):
        with training_batches(
            dataset, PAIR, batch=4, seed=3, threads=0, process_index=process, process_count=2
        ) as part:
            for name, rows in next(part).items():
                np.testing.assert_array_equal(rows, batch[name][2 * process : 2 * process + 2])


def test_evaluation_takes_as_many_views_of_each(place):
    dataset = open_data_set("posed_folder", place)
    with evaluation_batches(dataset, "train", batch=8, image_size=64, channels=3, threads=0) as stream:
        batch = next(stream)
    assert batch["valid"].sum() == 4 == 2 * dataset.views
    firsts = {posed_files.scene(number, 2)[0][0].tobytes() for number in (0, 2)}
    assert {batch["image"][0].tobytes(), batch["image"][2].tobytes()} == firsts


def posed_config(place) -> dict:
    changes = {"data.name": "posed_folder", "data.dir": str(place), "data.pair": "pose", "data.channels": 3}
    return changes | {"model.rays": "concat", "train.images": 16, "monitor.every_images": 0}


def test_a_run_finds_in_its_batches_what_it_expects(place, tmp_path):
    job = small_job.job(tmp_path, posed_config(place))
    with batches(job, 0) as stream:
        found = {name: (array.shape, array.dtype) for name, array in next(stream).items()}
    expected = {name: (spec.shape, spec.dtype) for name, spec in job.spec.items()}
    assert {name: found[name] for name in expected} == expected and "target_camera" in expected


@pytest.mark.slow
def test_a_run_is_trained_on_it(place, tmp_path):
    assert small_job.run(tmp_path, posed_config(place)).kind == "finished"
    losses = [record["loss"] for record in small_job.records(tmp_path) if "loss" in record]
    assert losses and np.isfinite(losses).all()


def test_objects_are_dealt_by_a_share_that_order_and_names_decide(tmp_path):
    for number in range(10):
        noise_object(tmp_path / f"o{number}")
    found = splits(tmp_path, test_share=0.3)
    assert len(found["train"]) == 7 and len(found["test"]) == 3
    assert not set(found["train"]) & set(found["test"])
    assert found == splits(tmp_path, test_share=0.3) and len(splits(tmp_path)["test"]) == 1
    assert set(splits(tmp_path)["test"]) < set(found["test"])
    assert splits(tmp_path, test_share=0.0).keys() == {"train"}
    assert len(splits(tmp_path, test_share=0.99)["train"]) == 1


def test_folders_of_splits_decide(tmp_path):
    for split, names in {"train": "ab", "val": "c", "test": "d"}.items():
        for name in names:
            noise_object(tmp_path / split / name, file="transforms.json")
    assert splits(tmp_path) == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def test_an_object_has_the_views_of_all_its_files(tmp_path):
    for name in ("a", "b"):
        for part in ("train", "val", "test"):
            noise_object(tmp_path / name, views=2, file=f"transforms_{part}.json", stem=part)
    listing = posed_folder.list_views(tmp_path, None)
    stems = [view.image.stem for views in listing["train"].values() for view in views]
    assert stems == ["train_0", "train_1", "val_0", "val_1", "test_0", "test_1"]


@pytest.mark.parametrize("inside", ["", "lego"])
def test_one_object_is_split_by_its_cameras(tmp_path, inside):
    for part, views in {"train": 4, "val": 2, "test": 3}.items():
        noise_object(tmp_path / inside, views, file=f"transforms_{part}.json", stem=part)
    dataset = read(tmp_path, tmp_path / "..out")
    assert set(dataset.present) == {"train", "val", "test"}
    assert [len(dataset.split(split)[0]["images"]) for split in ("train", "test")] == [4, 3]


def test_cameras_of_one_file_are_held_out(tmp_path):
    noise_object(tmp_path / "in", views=20, file="transforms.json")
    dataset = read(tmp_path / "in", tmp_path, test_share=0.25)
    places = {
        split: dataset.split(split)[0]["camera_to_world"][:, 0, 3].tolist() for split in ("train", "test")
    }
    assert len(places["test"]) == 5 and sorted(places["train"] + places["test"]) == list(range(20))
    assert dataset.views == 5


def test_transparent_pixels_show_the_background(tmp_path):
    for name in ("a", "b"):
        noise_object(tmp_path / "in" / name)
        clear = np.zeros((8, 8, 4), np.uint8)
        clear[:4] = 200, 100, 0, 255
        clear[4, 0] = 200, 100, 0, 51  # a fifth
        Image.fromarray(clear).save(tmp_path / "in" / name / "images" / "r_0.png")
    for background, light in (("white", 255), ("black", 0)):
        source = read(tmp_path / "in", tmp_path / background, background=background).split("train")
        image = decode(source[0]["images"][0], 3)
        np.testing.assert_array_equal(image[0, 0], [200, 100, 0])
        np.testing.assert_array_equal(image[7, 7], [light] * 3)
        np.testing.assert_allclose(image[4, 0], 0.2 * np.array([200, 100, 0]) + 0.8 * light, atol=1)


def test_images_are_cut_and_scaled_with_their_intrinsics(tmp_path):
    """A white left half of the middle square stays the left half, and the camera looks at its edge."""
    wide = np.zeros((8, 12, 3), np.uint8)
    wide[:, 2:6] = 255
    for name in ("a", "b"):
        for k in range(2):
            picture(tmp_path / "in" / name / f"{k}.png")
            Image.fromarray(wide).save(tmp_path / "in" / name / f"{k}.png")
        write_json(tmp_path / "in" / name / "transforms.json", [frame("0"), frame("1.png")], fl_x=6, cx=6)
    dataset = read(tmp_path / "in", tmp_path, image_size=4)
    example = dataset.split("train")[0]
    image = decode(example["images"][0], 3)
    assert dataset.image_shape == (4, 4, 3) and (image[:, :2] == 255).all() and (image[:, 2:] == 0).all()
    np.testing.assert_allclose(example["intrinsics"], [[3, 0, 1.5], [0, 3, 1.5], [0, 0, 1]])


def test_what_decides_the_records_is_in_the_fingerprint(tmp_path):
    for name in "ab":
        noise_object(tmp_path / name)

    def fingerprint(**options):
        return posed_folder.recipe(tmp_path, "objects", Options(**options)).fingerprint

    first = fingerprint()
    assert first == fingerprint()
    path = tmp_path / "a" / "transforms_train.json"
    variants = {fingerprint(image_size=4), fingerprint(background="black"), fingerprint(test_share=0.0)}
    content = json.loads(path.read_text())
    content["frames"][0]["transform_matrix"][0][3] = 0.5
    path.write_text(json.dumps(content))
    variants.add(fingerprint())
    assert len(variants | {first}) == 5
