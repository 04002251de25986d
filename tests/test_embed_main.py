"""The table of features: each image in its row, whatever interrupted the job, and words for what does not fit."""

import json

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from data.image_files import open_folder
from data.sources import open_data_set
from data.views import Near, plain_view
from experiments import embed
from experiments.embedding import folder_of
from soda_jax import export
from soda_jax.export import bundle
from tests import bundles, prepared_data, small_run

SIZE = 16
ROWS = 64  # of a part, with --batch=4


@pytest.fixture(scope="module")
def encoder():
    return bundles.encoder("resnet18")


@pytest.fixture
def photos(tmp_path):
    """150 images of different sizes, some of them deep, beside files that are none."""
    root = tmp_path / "photos"
    (root / "a" / "deep").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for i in range(150):
        place = root / ("a/deep" if i % 3 else "a") / f"{i:03d}.png"
        place.write_bytes(prepared_data.png(prepared_data.noise(i, 16 + i % 5, 20, 3)))
    (root / ".hidden" / "x.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    return root


def run(out, source, *more):
    return embed.main(
        [f"--bundle={bundles.written('resnet18')}", f"--source={source}", f"--out={out}", "--batch=4", *more]
    )


def vectors(table, name):
    return np.stack(table.column(name).to_numpy())


def about(path):
    return json.loads(pq.read_schema(path).metadata[b"soda_jax"])


def test_a_folder(photos, encoder, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    assert run(out, photos) == 0
    said = capsys.readouterr().out
    assert "64/150 images" in said and "images/s" in said and "150 images, z, pooled" in said
    table = pq.read_table(out)
    names = table.column("id").to_pylist()
    found = sorted(path.relative_to(photos).as_posix() for path in photos.glob("a/**/*.png"))
    assert names == found and len(names) == 150
    images = np.stack([plain_view((photos / name).read_bytes(), SIZE, 3) for name in names])
    expected = encoder(jnp.asarray(images))
    for name in ("z", "pooled"):
        np.testing.assert_allclose(vectors(table, name), expected[name], rtol=1e-4, atol=1e-5)
    assert about(out)["encoder_sha256"] == export.bundle.opened(bundles.written("resnet18"))["encoder_sha256"]
    assert not folder_of(out).exists()


def test_a_data_set_with_its_labels_and_views(encoder, tmp_path):
    """Its scenes have 4 views each; both splits, and one of them."""
    name, place = small_run.dataset(), f"--data_dir={prepared_data.data_dir()}"
    assert run(tmp_path / "x.parquet", f"tfds:{name}", place) == 0
    table = pq.read_table(tmp_path / "x.parquet")
    ids = table.column("id").to_pylist()
    rows = (small_run.TRAIN + small_run.TEST) * small_run.CAMERAS
    assert ids[:5] == ["train/0/0", "train/0/1", "train/0/2", "train/0/3", "train/1/0"] and len(ids) == rows
    assert run(tmp_path / "y.parquet", f"tfds:{name}", place, "--split=test") == 0
    test = pq.read_table(tmp_path / "y.parquet")
    assert test.column("id").to_pylist() == [name for name in ids if name.startswith("test")]
    examples = open_data_set(name, prepared_data.data_dir()).split("test").read(range(small_run.TEST))
    hues = [example["labels"]["hue"] for example in examples for _ in range(small_run.CAMERAS)]
    assert test.column("label_hue").to_pylist() == hues
    images = np.stack([plain_view(x, SIZE, 3) for example in examples for x in example["images"]])
    np.testing.assert_allclose(vectors(test, "z"), encoder(images)["z"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vectors(test, "z"), vectors(table, "z")[-test.num_rows :])


def test_images_are_looked_at_from_as_near_as_in_training(photos, encoder, tmp_path):
    nearer = {**bundles.ABOUT, "training_config": {"data": {"zoom": 2.0}}}
    bundle.write(tmp_path / "near", encoder, nearer, card="# card\n", preprocessing={}, dtype="float32")
    out = tmp_path / "x.parquet"
    assert (
        embed.main([f"--bundle={tmp_path / 'near'}", f"--source={photos}", f"--out={out}", "--batch=4"]) == 0
    )
    table = pq.read_table(out)
    names = table.column("id").to_pylist()
    images = np.stack([plain_view(Near((photos / name).read_bytes(), 2.0), SIZE, 3) for name in names])
    np.testing.assert_allclose(vectors(table, "z"), encoder(jnp.asarray(images))["z"], rtol=1e-4, atol=1e-5)


def test_the_one_label_of_single_images_is_called_label(tmp_path):
    dataset = prepared_data.single(3)
    assert run(tmp_path / "x.parquet", f"tfds:{dataset.name}", f"--data_dir={prepared_data.data_dir()}") == 0
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names[:2] == ["id", "label"] and table.column("id")[1].as_py() == "train/1"


def test_it_goes_on_after_a_corrupt_image_with_the_bytes_of_an_unbroken_run(photos, tmp_path, capsys):
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    assert run(whole, photos) == 0
    victim = photos / open_folder(photos, 3).split("test").names[100]  # in the second part
    good = victim.read_bytes()
    victim.write_bytes(good[:-20])
    assert run(broken, photos) == 1
    said = capsys.readouterr().err
    assert str(victim) in said and "replace or remove it" in said and not broken.exists()
    first = folder_of(broken) / "00000.parquet"
    stamp = first.stat().st_mtime_ns
    assert [path.name for path in folder_of(broken).iterdir()] == [first.name]
    victim.write_bytes(good)
    (folder_of(broken) / "00001.trial").write_bytes(b"half a part")  # as a kill leaves it
    assert run(broken, photos) == 0
    said = capsys.readouterr().out
    assert "64 images are done already" in said and "128/150 images" in said and "64/150 images" not in said
    assert stamp < broken.stat().st_mtime_ns and broken.read_bytes() == whole.read_bytes()
    assert run(broken, photos) == 0
    assert "there already" in capsys.readouterr().out


def test_a_part_of_other_images_is_made_again(photos, tmp_path):
    out, names = tmp_path / "x.parquet", open_folder(photos, 3).split("test").names
    last = photos / names[-1]
    good = last.read_bytes()
    last.write_bytes(b"")
    assert run(out, photos) == 1
    last.write_bytes(good)
    (photos / names[0]).write_bytes(prepared_data.png(prepared_data.noise(199, 30, 30, 3)))
    assert run(out, photos) == 0
    image = plain_view((photos / names[0]).read_bytes(), SIZE, 3)
    np.testing.assert_allclose(
        vectors(pq.read_table(out), "z")[0],
        bundles.encoder("resnet18")(image[None])["z"][0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_another_table_is_not_replaced(photos, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    assert run(out, photos) == 0
    before = out.read_bytes()
    (photos / "a" / "000.png").unlink()
    assert run(out, photos) == 1
    assert "is there already, of another encoder or source" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out={tmp}/x.csv"], "ends in .parquet"),
        (["--out={tmp}/no/x.parquet"], "there is no folder"),
        (["--batch=0"], "--batch=0"),
        (["--split=test"], "--split is for tfds:NAME"),
        (["--source={tmp}/no"], "is no folder"),
        (["--source={tmp}"], "no images below"),
        (["--source=tfds:unknown_set", "--data_dir={tmp}"], "unknown_set"),
        (["--bundle={tmp}"], "is no bundle"),
    ],
)
def test_what_does_not_fit(arguments, words, tmp_path, capsys):
    values = {
        "--bundle": str(bundles.written("resnet18")),
        "--source": str(tmp_path),
        "--out": f"{tmp_path}/x.parquet",
    }
    values |= dict(text.format(tmp=tmp_path).split("=", 1) for text in arguments)
    assert embed.main([f"{name}={value}" for name, value in values.items()]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_an_image_that_is_turned_by_its_camera_and_one_with_transparency(tmp_path):
    """What decoders disagree about is settled when a file is read."""
    from PIL import Image

    pixels = prepared_data.noise(0, 16, 16, 3)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif(6))
    Image.fromarray(np.dstack([pixels, np.zeros((16, 16), np.uint8)])).save(tmp_path / "clear.png")
    source = open_folder(tmp_path, 3).split("test")
    assert source.names == ("clear.png", "turned.png")
    clear, turned = (plain_view(example["images"][0], 16, 3) for example in source.read([0, 1]))
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    assert (clear == 255).all()


def exif(orientation):
    from PIL import Image

    found = Image.Exif()
    found[0x0112] = orientation
    return found
