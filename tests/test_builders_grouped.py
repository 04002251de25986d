"""Grouped folders: images of one group are source and target of each other, and groups stay in their split."""

import numpy as np
import pytest

from data import prepare
from data.builders import grouped_folder, holdout, store
from data.errors import DataError
from data.pipeline import check_fit, training_batches
from data.sources import open_data_set
from data.views import Views
from tests.posed_files import picture

SIZES = {"ant": 2, "bee": 3, "cat": 5}
PAIR = Views(image_size=8, source_size=8, pair="pose")


def write_groups(root, sizes=SIZES, **options):
    """Group -> images of noise, all different."""
    for place, (name, count) in enumerate(sizes.items()):
        for i in range(count):
            picture(root / name / f"{i}.png", seed=100 * place + i, **options)
    return root


def message(root, share=None) -> str:
    with pytest.raises(DataError) as caught:
        grouped_folder.recipe(root, "groups", share)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def splits(root, share=None) -> dict[str, list[str]]:
    return {split: list(groups) for split, groups in grouped_folder.list_groups(root, share).items()}


def test_groups_read_back_byte_for_byte(tmp_path):
    root = write_groups(tmp_path / "in" / "train")
    write_groups(tmp_path / "in" / "test", {"dog": 4})
    flags = ["grouped_folder", f"--source={tmp_path / 'in'}", f"--data_dir={tmp_path / 'out'}"]
    assert prepare.main(flags) == 0
    dataset = open_data_set("grouped_folder", tmp_path / "out")
    assert (dataset.views, dataset.image_shape, dataset.labels) == (2, (8, 8, 3), {})
    assert not dataset.cameras and len(dataset.split("test")[0]["images"]) == 4
    files = [[(root / name / f"{i}.png").read_bytes() for i in range(n)] for name, n in SIZES.items()]
    found = [example["images"] for example in dataset.split("train").read(range(3))]
    assert sorted(found) == sorted(files)


def test_pairs_are_two_images_of_one_group(tmp_path):
    """Every ordered pair of a group comes, also of a group with more images than the smallest."""
    root = write_groups(tmp_path / "in")
    store.write(grouped_folder.recipe(root, "groups", 0.0), tmp_path / "out")
    owner = {}
    for place, (name, count) in enumerate(SIZES.items()):
        for i in range(count):
            noise = np.random.default_rng(100 * place + i).integers(0, 256, (8, 8, 3), np.uint8)
            owner[noise.tobytes()] = name, i
    seen, dataset = set(), open_data_set("groups", tmp_path / "out")
    with training_batches(dataset, PAIR, batch=300, seed=0, threads=0) as stream:
        batch = next(stream)
    for source, target in zip(batch["source"], batch["target"], strict=True):
        seen.add((owner[source.tobytes()], owner[target.tobytes()]))
    pairs = {((g, i), (g, j)) for g, n in SIZES.items() for i in range(n) for j in range(n) if i != j}
    assert seen == pairs and set(batch) == {"source", "target", "index"}


def test_images_of_any_size_and_depth_make_a_group(tmp_path):
    write_groups(tmp_path / "in", mode="L")
    picture(tmp_path / "in" / "ant" / "more" / "wide.jpg", size=(9, 15), mode="L")
    recipe = grouped_folder.recipe(tmp_path / "in", "groups")
    assert recipe.image_shape == (None, None, 1)
    store.write(recipe, tmp_path / "out")
    dataset = open_data_set("groups", tmp_path / "out")
    check_fit(dataset, Views(image_size=5, source_size=7, pair="pose_augment"))  # need not divide the sides
    with pytest.raises(DataError, match=r"config\.model\.rays needs cameras, and data set 'groups' has none"):
        check_fit(dataset, Views(image_size=8, source_size=8, pair="pose", cameras=True))


def test_groups_are_dealt_by_a_share_or_a_list(tmp_path):
    root = write_groups(tmp_path, dict.fromkeys("abcdefghij", 2))
    assert {split: len(names) for split, names in splits(root, 0.4).items()} == {"train": 6, "test": 4}
    (root / "test.txt").write_text("c\ne/\n\n")
    assert splits(root) == {"train": list("abdfghij"), "test": ["c", "e"]}
    assert "--test_share=0.4: " in message(root, 0.4) and "test.txt decides already" in message(root, 0.4)
    (root / "test.txt").write_text("c\nx\n")
    assert "lists 'x', and there is no such group folder" in message(root)
    (root / "test.txt").write_text("\n".join("abcdefghij"))
    assert "lists every group" in message(root)
    (root / "test.txt").write_bytes(b"\xff")
    assert "is not UTF-8 text" in message(root)


def test_a_name_keeps_its_rank_when_others_come():
    """What is held out of 100 names stays so when 5 are added, but for those that these push over the edge."""
    names = [f"group{i}" for i in range(105)]
    before, after = holdout.hold_out(names[:100], 0.2), holdout.hold_out(names, 0.2)
    assert len(before) == 20 and len(after) == 21 and len(before - after) <= 4
    assert holdout.hold_out(names[99::-1], 0.2) == before
    assert holdout.hold_out(["a"], 0.5) == set() == holdout.hold_out(["a", "b", "c"], 0.5, least=2)
    assert len(holdout.hold_out(["a", "b"], 0.01)) == 1 == len(holdout.hold_out(["a", "b"], 0.99))


def test_folders_that_are_wrong_are_named(tmp_path):
    assert f"no group folders in {tmp_path}" in message(tmp_path)
    write_groups(tmp_path / "train")
    write_groups(tmp_path / "test", {"bee": 2})
    assert "group 'bee' is in train/ and in test/: leave it in one" in message(tmp_path)
    (tmp_path / "test" / "bee").rename(tmp_path / "test" / "dog")
    assert splits(tmp_path) == {"train": ["ant", "bee", "cat"], "test": ["dog"]}
    assert "--test_share=0.1: " in message(tmp_path, 0.1)
    (tmp_path / "more").mkdir()
    assert "has more/ beside train/: only train/, val/ and test/ are read" in message(tmp_path)
    (tmp_path / "more").rmdir()
    (tmp_path / "test" / "dog" / "1.png").unlink()
    assert f"group folder {tmp_path / 'test' / 'dog'} has 1 image: a group needs 2 or more" in message(
        tmp_path
    )
    (tmp_path / "test" / "dog" / "0.png").unlink()
    assert "has no images: a group needs" in message(tmp_path)


def test_a_cut_image_stops_the_preparation_and_leaves_nothing(tmp_path):
    root = write_groups(tmp_path / "in")
    path = picture(root / "bee" / "0.png", size=(64, 64))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match=rf"{path} is not a readable image"):
        store.write(grouped_folder.recipe(root, "groups"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_another_split_is_another_data_set(tmp_path):
    root = write_groups(tmp_path)
    first = grouped_folder.recipe(root, "groups").fingerprint
    assert grouped_folder.recipe(root, "other").fingerprint == first
    assert grouped_folder.recipe(root, "groups", 0.6).fingerprint != first
    picture(root / "ant" / "new.png")
    assert grouped_folder.recipe(root, "groups").fingerprint != first
