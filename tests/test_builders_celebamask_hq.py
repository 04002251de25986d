"""CelebAMask-HQ from its folder: masks are merged, splits are CelebA's, what is wrong is told, and dense reads it."""

import functools
import os

import numpy as np
import pytest
from PIL import Image

from data import dense, prepare
from data.builders import celebamask_hq, store
from data.dense_info import IGNORED
from data.errors import DataError
from data.pipeline import evaluation_batches
from data.sources import open_data_set
from data.views import decode

SPLITS = {
    0: 162_769,
    3: 162_770,
    4: 182_636,
    2001: 182_637,
    7: 5,
}  # number -> orig_idx, at the ends of CelebA's splits
SIDE = 32  # of images; masks have half of it, as they have there


def boxes(number):
    """Part -> (top, left, bottom, right) in the mask: each overlaps the one painted before it."""
    shown = {"skin": (2, 2, 14, 14), "nose": (5, 5, 9, 9), "l_eye": (3, 3, 6, 6), "hair": (0, 0, 4, 16)}
    return shown | ({"hat": (0, 4, 3, 12)} if number % 2 else {"cloth": (13, 0, 16, 16)})


def drawn(box, side=SIDE // 2):
    mask = np.zeros((side, side), np.uint8)
    top, left, bottom, right = box
    mask[top:bottom, left:right] = 255
    return mask


def colour_of(number):
    return np.array([number % 251, 40, 200], np.uint8)


def write_folder(root, splits=SPLITS):
    """A folder as it is published, small. Masks lie there as RGB and as grey."""
    (root / celebamask_hq.IMAGES).mkdir(parents=True)
    lines = ["idx\torig_idx\torig_file"]
    for number, original in splits.items():
        lines.append(f"{number}\t\t{original}\t\t{original + 1:06d}.jpg")
        picture = np.broadcast_to(colour_of(number), (SIDE, SIDE, 3))
        Image.fromarray(picture).save(
            root / celebamask_hq.IMAGES / f"{number}.jpg", quality=100, subsampling=0
        )
        for part, box in boxes(number).items():
            path = root / celebamask_hq.MASKS / str(number // 2000) / f"{number:05d}_{part}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn(box)).convert("RGB" if part == "skin" else "L").save(path)
    (root / celebamask_hq.MAPPING).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "in")


def message(root, size=16, build=False) -> str:
    with pytest.raises(DataError) as caught:
        recipe = celebamask_hq.recipe(root, image_size=size)
        store.write(recipe, root.parent / "out")
    assert "\n" not in str(caught.value)
    assert not build or list((root.parent / "out").iterdir()) == []
    return str(caught.value)


def expected_mask(number):
    """Written out: which of the overlapping parts is on top is decided by hand, not by a list."""
    mask = np.zeros((16, 16), np.uint8)
    for part, label in (("skin", 1), ("nose", 2), ("l_eye", 4), ("hair", 13), ("hat", 14), ("cloth", 18)):
        if part in boxes(number):
            mask[drawn(boxes(number)[part]) > 0] = label
    return mask


def test_the_classes_are_those_of_the_paper():
    names = celebamask_hq.INFO.classes
    assert len(names) == len(set(names)) == 19
    assert [names[k] for k in (0, 1, 6, 13, 14, 18)] == [
        "background",
        "skin",
        "l_brow",
        "hair",
        "hat",
        "cloth",
    ]


def test_images_are_read_back_with_their_masks_in_the_split_of_celeba(folder, tmp_path, capsys):
    flags = ["celebamask_hq", f"--source={folder}", f"--data_dir={tmp_path / 'out'}", "--image_size=16"]
    assert prepare.main(flags) == 0
    assert "prepared celebamask_hq (2 train, 2 val, 1 test)" in capsys.readouterr().out
    assert prepare.main(flags) == 0 and "already prepared" in capsys.readouterr().out
    found = {}
    for split in ("train", "val", "test"):
        dataset = open_data_set("celebamask_hq", tmp_path / "out", test_split=split)
        assert (dataset.image_shape, dataset.views, dataset.labels) == ((16, 16, 3), 1, {})
        for example in (
            dense.with_truth(dataset, "segmentation").split("test").read(range(len(dataset.split("test"))))
        ):
            colour = decode(example["images"][0], 3)[8, 8].astype(int)
            number = min(SPLITS, key=lambda n: abs(colour - colour_of(n)).sum())
            found[number] = split
            np.testing.assert_array_equal(dense.decode_mask(example["masks"][0]), expected_mask(number))
    assert found == {0: "train", 7: "train", 3: "val", 4: "val", 2001: "test"}


def test_masks_and_images_are_scaled_alike(folder):
    """An image whose left half is bright, and a part that is that half: also where the size does not divide theirs."""
    half = np.zeros((SIDE, SIDE, 3), np.uint8)
    half[:, : SIDE // 2] = 255
    Image.fromarray(half).save(folder / celebamask_hq.IMAGES / "0.jpg", quality=100, subsampling=0)
    for part in boxes(0):
        path = folder / celebamask_hq.MASKS / "0" / f"00000_{part}.png"
        Image.fromarray(drawn((0, 0, 16, 8) if part == "skin" else (0, 0, 0, 0))).save(path)
    face = next(face for face in _faces(folder) if face.number == 0)
    for size in (8, 16, 32, 12):
        made = celebamask_hq.example(face, size)
        bright = decode(made["image"], 1) > 127
        np.testing.assert_array_equal(dense.decode_mask(made["masks"][0]) == 1, bright)
        assert bright.shape == (size, size) and bright.sum() == size * size // 2


def test_a_pixel_has_the_class_at_its_middle(folder):
    """Of masks three times as large, of which only the middles of blocks are white."""
    dots = np.zeros((48, 48), np.uint8)
    dots[1::3, 1::3] = 255
    face = celebamask_hq.Face(0, folder / celebamask_hq.IMAGES / "0.jpg", {"hat": folder / "dots.png"})
    Image.fromarray(dots).save(folder / "dots.png")
    assert np.all(dense.decode_mask(celebamask_hq.example(face, 16)["masks"][0]) == 14)


def _faces(folder):
    mapping = folder / celebamask_hq.MAPPING
    found = celebamask_hq.list_faces(folder, celebamask_hq.read_mapping(mapping.read_text(), mapping))
    return [face for faces in found.values() for face in faces]


def test_dense_tasks_read_it(folder, tmp_path):
    store.write(celebamask_hq.recipe(folder, "faces", 16), tmp_path / "out")
    dataset = dense.with_truth(open_data_set("faces", tmp_path / "out"), "segmentation")
    info = dense.info_of(dataset)
    assert info == celebamask_hq.INFO and info.sided
    known = functools.partial(dense.truth, size=16)
    with evaluation_batches(dataset, "test", batch=2, image_size=16, channels=3, beside=known) as batches:
        batch = next(batches)
    np.testing.assert_array_equal(batch["mask"][0], expected_mask(2001))
    assert batch["image"].shape == (2, 16, 16, 3) and IGNORED not in batch["mask"]
    with pytest.raises(DataError, match=r"'faces' .* has no keypoints"):
        dense.with_truth(open_data_set("faces", tmp_path / "out"), "landmarks")


def test_missing_files_are_named(folder):
    root = folder.rename(folder.parent / "kept")
    masks = root / celebamask_hq.MASKS / "1"
    masks.rename(root / "away")
    assert f"image 2001 has no masks: expected {masks / '02001_skin.png'} and others" in message(root)
    (root / "away").rename(masks)
    image = root / celebamask_hq.IMAGES / "4.jpg"
    content = image.read_bytes()
    image.unlink()
    assert f"there is no {image}, which CelebA-HQ-to-CelebA-mapping.txt lists" in message(root)
    image.write_bytes(content)
    more = image.with_name("8.jpg")
    more.write_bytes(content)
    assert f"{more} is not among the 5 images of CelebA-HQ-to-CelebA-mapping.txt" in message(root)
    more.unlink()
    (masks / "02001_glasses.png").write_bytes(b"")
    assert "'glasses' is no part; expected one of skin, nose, " in message(root)
    (masks / "02001_glasses.png").rename(masks / "Thumbs.db")
    assert celebamask_hq.recipe(root).splits["train"].size == 2


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["0 1"], "line 2: expected idx, orig_idx (below 202599) and orig_file"),
        (["0 202599 202600.jpg"], "line 2: expected idx, orig_idx"),
        (["0 x 000002.jpg"], "line 2: expected idx, orig_idx"),
        (["0 1 000002.jpg", "0 2 000003.jpg"], "lists an image twice"),
        (["0 1 000002.jpg", "1 162770 162771.jpg"], "has no image of CelebA's split test"),
        ([], "has no image of CelebA's split train"),
    ],
)
def test_a_mapping_that_is_none_is_told_by_line(folder, lines, words):
    path = folder / celebamask_hq.MAPPING
    path.write_text("\n".join(["idx orig_idx orig_file", *lines]))
    assert f"{path}" in message(folder) and words in message(folder)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def widened(path):
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "name", "words"),
    [
        (cut, "CelebA-HQ-img/0.jpg", "is not a readable image"),
        (cut, "CelebAMask-HQ-mask-anno/0/00000_nose.png", "is not a readable image"),
        (
            widened,
            "CelebAMask-HQ-mask-anno/0/00000_nose.png",
            "has another size than the image's other masks",
        ),
        (widened, "CelebA-HQ-img/0.jpg", "has 16 x 20 pixels, and those of CelebAMask-HQ are square"),
    ],
)
def test_damaged_files_stop_it_and_nothing_is_kept(folder, spoil, name, words):
    spoil(folder / name)
    assert message(folder, build=True).startswith(f"{folder / name} {words}")


def test_more_pixels_than_there_are_cannot_be_had(folder):
    assert "--image_size=33: " in message(folder, 33, build=True)


def test_it_is_written_through_the_store_that_keeps_all_or_nothing(folder, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(celebamask_hq.images, "encode_png", stopped)
    flags = ["celebamask_hq", f"--source={folder}", f"--data_dir={tmp_path / 'out'}", "--image_size=16"]
    assert prepare.main(flags) == 130
    assert "interrupted; nothing was kept" in capsys.readouterr().err and os.listdir(tmp_path / "out") == []


def test_another_size_mask_or_mapping_is_another_data_set(folder):
    first = celebamask_hq.recipe(folder).fingerprint
    assert celebamask_hq.recipe(folder, "other").fingerprint == first
    assert celebamask_hq.recipe(folder, image_size=64).fingerprint != first
    (folder / celebamask_hq.MASKS / "0" / "00000_nose.png").unlink()
    second = celebamask_hq.recipe(folder).fingerprint
    mapping = folder / celebamask_hq.MAPPING
    mapping.write_text(mapping.read_text().replace("\t5\t", "\t6\t"))
    assert len({first, second, celebamask_hq.recipe(folder).fingerprint}) == 3
