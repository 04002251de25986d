"""The command that compares two sets of images: what it writes, that it writes it once, and words for what is wrong."""

import json

import cv2
import numpy as np
import pytest

from data.views import plain_view
from experiments import quality
from experiments.image_sets import image_set
from soda_jax import export
from soda_jax.evaluation import frechet
from soda_jax.export import bundle
from tests import bundles, prepared_data, small_run

SIZE = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """70 images, and the same ones blurred."""
    root = tmp_path_factory.mktemp("images")
    for name in ("sharp", "blurred"):
        (root / name).mkdir()
    for i in range(70):
        image = prepared_data.noise(i, SIZE, SIZE + i % 3, 3)
        (root / "sharp" / f"{i}.png").write_bytes(prepared_data.png(image))
        (root / "blurred" / f"{i}.png").write_bytes(prepared_data.png(cv2.GaussianBlur(image, (5, 5), 1)))
    return root


def space():
    return f"--space=bundle:{bundles.written('resnet18')}"


def run(a, b, out, *more):
    return quality.main([f"--a={a}", f"--b={b}", f"--out={out}", "--batch=32", *more])


def points(images):
    encoder = export.load(bundles.written("resnet18"))
    return frechet.of(np.asarray(encoder(np.stack(images))["pooled"]))


def test_two_folders_in_the_space_of_a_bundle(folders, tmp_path, capsys):
    out = tmp_path / "x.json"
    assert run(folders / "sharp", folders / "blurred", out, space()) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    (name,) = found["frechet"]
    assert name == f"encoder_{bundle.opened(bundles.written('resnet18'))['encoder_sha256'][:16]}_pooled"
    both = [
        points([plain_view(path.read_bytes(), SIZE, 3) for path in sorted((folders / kind).iterdir())])
        for kind in ("sharp", "blurred")
    ]
    assert found["frechet"][name] == pytest.approx(frechet.frechet_distance(*both), rel=1e-3)
    assert found["n"] == {"a": 70, "b": 70} and "fid" not in found and found["kernel"][name]["value"] > 0
    assert f"Frechet distance in {name}: {found['frechet'][name]:.6g}" in said and "FID" not in said
    before = out.stat().st_mtime_ns
    assert run(folders / "sharp", folders / "blurred", out, space()) == 0
    said = capsys.readouterr().out
    assert "there already" in said and name in said and out.stat().st_mtime_ns == before
    assert run(folders / "blurred", folders / "sharp", out, space()) == 1
    assert "is there already, of other images or spaces" in capsys.readouterr().err


def test_splits_of_a_data_set_and_a_part_of_them(tmp_path):
    name, place = small_run.dataset(), f"--data_dir={prepared_data.data_dir()}"
    out = tmp_path / "x.json"
    assert run(f"tfds:{name}:train", f"tfds:{name}:test", out, space(), place, "--images=30") == 0
    found = json.loads(out.read_text())
    assert found["n"] == {"a": 30, "b": 30}
    whole = image_set(f"tfds:{name}", str(prepared_data.data_dir()))
    assert {split: len(images) for split, images in whole.chosen.items()} == {
        "train": small_run.TRAIN * small_run.CAMERAS,
        "test": small_run.TEST * small_run.CAMERAS,
    }
    part = image_set(f"tfds:{name}", str(prepared_data.data_dir()), 30)
    again = image_set(f"tfds:{name}", str(prepared_data.data_dir()), 30)
    assert sum(map(len, part.chosen.values())) == 30 and part.key == again.key != whole.key
    assert all(np.all(np.diff(images) > 0) for images in part.chosen.values())
    assert min(map(len, part.chosen.values())) > 0 and part.chosen["test"].max() < 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out={tmp}/x.txt"], "ends in .json"),
        (["--out={tmp}/no/x.json"], "there is no folder"),
        (["--batch=0"], "--batch=0"),
        (["--images=1"], "--images=1: expected 2 or more"),
        (["--size=0"], "--size=0"),
        (["--size=100"], "at 100 pixels (--size"),
        (["--space=resnet"], "--space=resnet: expected random_resnet18, run:DIR or bundle:DIR"),
        (["--space=run:{tmp}"], "expected a run"),
        (["--space=bundle:{tmp}"], "is no bundle"),
        (["--inception={tmp}/none.pth"], "none.pth: there is no such file of weights"),
        (["--a={tmp}/none"], "none is no folder"),
        (["--b={tmp}"], "no images below"),
        (["--b=tfds:unknown_set:test", "--data_dir={tmp}"], "unknown_set"),
    ],
)
def test_what_does_not_fit(arguments, words, folders, tmp_path, capsys):
    values = {"--a": f"{folders}/sharp", "--b": f"{folders}/sharp", "--out": f"{tmp_path}/x.json"}
    values |= {"--space": space().partition("=")[2]}
    values |= dict(text.format(tmp=tmp_path).split("=", 1) for text in arguments)
    assert quality.main([f"{name}={value}" for name, value in values.items()]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*.json"))


def test_a_single_image_is_no_distribution(tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(prepared_data.png(prepared_data.noise(0, SIZE, SIZE, 3)))
    assert run(tmp_path, tmp_path, tmp_path / "x.json", space()) == 1
    assert "holds 1 image(s): a distribution needs 2 or more" in capsys.readouterr().err
