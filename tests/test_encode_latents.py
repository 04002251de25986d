"""A data set of latents of another one: what is in it, that it is made part by part, and goes on where it stopped."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.sources import open_data_set
from data.views import decode
from experiments import encode_latents
from soda_jax.nn.autoencoder_kl import LOW
from tests import prepared_data as prepared
from tests.test_autoencoder_kl import CONFIG, NET, state

SIZE, COPIES, PAD = 32, 3, 2  # of images of 28 pixels
LATENT = SIZE // NET.factor


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """(the folder of a VAE whose draws are its means, its parameters)"""
    return write_vae(tmp_path_factory.mktemp("vae"), LOW)


def write_vae(folder, log_var):
    """log_var: of all of its posteriors."""
    numpy_files = pytest.importorskip("safetensors.numpy")
    kernel = np.random.default_rng(3).normal(size=(8, 8, 1, 1)).astype(np.float32)
    kernel[4:] = 0
    bias = np.repeat(np.float32([0, log_var]), 4)
    arrays = state(quant_conv__weight=kernel, quant_conv__bias=bias)
    numpy_files.save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder, jax.tree.map(jnp.asarray, encode_latents.autoencoder_weights.read(folder)[1])


def run(vae, name, place, *more, data="single3"):
    """The exit status. Data sets are read where they were prepared, and written there."""
    arguments = {"vae": vae[0], "data": data, "name": name, "data_dir": place, "size": SIZE}
    arguments |= {"copies": COPIES, "pad": PAD, "batch": 5}
    return encode_latents.main([*(f"--{key}={value}" for key, value in arguments.items()), *more])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of data sets with `single3` in it; parts have eight images."""
    folder = tmp_path_factory.mktemp("data")
    prepared.single(3)
    (folder / "single3").symlink_to(prepared.data_dir() / "single3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_latents, "PART", 8)
        yield folder


@pytest.fixture(scope="module")
def made(vae, place):
    """The data set of latents."""
    assert run(vae, "made", place) == 0
    return open_data_set("made", place)


@jax.jit
def ten_means(params, images):
    """What uint8 images [10, 28, 28, 3] are as latents."""
    x = jax.image.resize(images.astype(jnp.float32) / 127.5 - 1, (10, SIZE, SIZE, 3), "linear")
    return NET.encode(params, x)


def means(vae, images):
    """Of any number of them."""
    filled = np.concatenate([images, np.zeros((-len(images) % 10, 28, 28, 3), np.uint8)])
    found = [ten_means(vae[1], filled[i : i + 10]) for i in range(0, len(filled), 10)]
    return np.concatenate(found)[: len(images)]


def by_key(dataset, split, channels):
    """Label and images of each example, by the number that its first image has."""
    examples = dataset.split(split).read(range(len(dataset.split(split))))
    return [(e["labels"]["label"], [decode(image, channels) for image in e["images"]]) for e in examples]


def test_plain_copies_are_the_latents_of_the_images_with_their_labels(vae, place, made):
    """Every image of both splits, whatever their order in the files."""
    origin = open_data_set("single3", place)
    assert made.latents and made.image_shape == (LATENT, LATENT, 4) and made.labels == origin.labels
    for split, copies in (("train", COPIES), ("test", 1)):
        images, found = by_key(origin, split, 3), by_key(made, split, 4)
        wanted = means(vae, np.stack([first for _, (first, *_) in images]))
        assert len(found) == len(images) and all(len(kept) == copies for _, kept in found)
        plain = np.stack([kept[0] for _, kept in found])
        apart = np.abs(plain[:, None] - wanted[None]).max((2, 3, 4))
        nearest = apart.argmin(1)
        assert sorted(nearest) == list(range(len(images)))
        np.testing.assert_allclose(plain, wanted[nearest], atol=2e-3 * np.abs(wanted).max())
        assert [label for label, _ in found] == [images[i][0] for i in nearest]


def test_other_copies_are_crops_and_mirror_images(vae, place, made):
    """Each is the latent of one of all crops out of so many black pixels; not all copies are of the same."""
    images = [image for _, (image,) in by_key(open_data_set("single3", place), "train", 3)]
    found, chosen = by_key(made, "train", 4), set()
    plain = means(vae, np.stack(images))
    for kept in (kept for _, kept in found[:2]):
        image = images[np.abs(plain - kept[0]).max((1, 2, 3)).argmin()]
        wide = cv2.copyMakeBorder(image, *(PAD,) * 4, cv2.BORDER_CONSTANT, value=0)
        steps = range(2 * PAD + 1)
        crops = np.stack([wide[i : i + 28, j : j + 28] for i in steps for j in steps])
        wanted = means(vae, np.concatenate([crops, crops[:, :, ::-1]]))
        for copy in kept[1:]:
            apart = np.abs(wanted - copy).max((1, 2, 3))
            assert apart.min() < 2e-3 * np.abs(wanted).max()
            chosen.add(int(apart.argmin()))
    assert len(chosen) > 1


def test_it_goes_on_where_it_was_stopped(vae, place, made, monkeypatch, capsys):
    """With the same bits as without a stop, parts that are there are not made again, and nothing is left over."""
    original, calls = encode_latents.write, []

    def write(job, part, *rest):
        calls.append(part.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(job, part, *rest)

    monkeypatch.setattr(encode_latents, "write", write)
    assert run(vae, "stopped", place) != 0
    assert "the same command goes on" in capsys.readouterr().err
    assert not (place / "stopped").exists()
    assert run(vae, "stopped", place) == 0
    assert calls == [0, 1, 2, 2, 3, 4]  # 23 and 11 images
    assert not list(place.glob(".latents-*"))
    for split in ("train", "test"):
        first, second = (by_key(x, split, 4) for x in (made, open_data_set("stopped", place)))
        jax.tree.map(np.testing.assert_array_equal, first, second)
    assert run(vae, "stopped", place) == 0 and len(calls) == 6
    assert "already prepared" in capsys.readouterr().out


def test_draws_have_the_posterior_s_deviation_and_differ_by_image_and_copy(tmp_path):
    """Of equal images, whose means are equal."""
    folder, params = write_vae(tmp_path, 2 * np.log(0.5))
    draw = jax.jit(encode_latents.program(NET, encode_latents._parser().parse_args(flags(folder))))
    batch = {"image": np.full((4, 28, 28, 3), 90, np.uint8), "index": np.arange(4), "labels": {}}
    batch["valid"] = np.ones(4, bool)
    found = [draw({"vae": params, "draw": np.int32([0, copy])}, batch)["latents"] for copy in (0, 0, 1)]
    found = np.asarray(found, np.float32)
    np.testing.assert_array_equal(found[0], found[1])
    deviation = np.stack([found[0] - found[2], found[0] - found[0][[1, 2, 3, 0]]]) / 0.18215
    np.testing.assert_allclose(deviation.std((1, 2, 3, 4)), 0.5 * np.sqrt(2), rtol=0.05)
    assert found.dtype == np.float32 and np.isfinite(found).all()


def flags(folder):
    return [f"--vae={folder}", "--data=single3", "--name=x", f"--size={SIZE}"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--size=33"], "--size=33: expected a multiple of 2"),
        (["--copies=0"], "--copies=0: expected 1 or more"),
        (["--name=Mine"], "--name=Mine: expected lower-case letters"),
        (["--data=made"], "channels = 3: data set 'made' holds latents"),
        (["--vae=/nowhere"], "/nowhere: expected a folder of diffusers with a config.json"),
        (["--name=made", "--copies=2"], "has changed since"),
        (["--data=posed"], "--data=posed has 4 images in an example, expected one"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line_before_anything_is_made(more, words, vae, place, made, capsys):
    prepared.posed()
    if not (place / "posed").exists():
        (place / "posed").symlink_to(prepared.data_dir() / "posed")
    assert run(vae, "other", place, *more) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(place.glob(".latents-*"))
