"""Image files: kept byte for byte where every decoder agrees, converted where they do not."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from data.builders import images
from data.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
GREY = RGB[..., 0]


def save(path, image, mode=None, **options):
    picture = Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def decode(encoded, channels=3):
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    return decoded[..., ::-1] if channels == 3 else decoded


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.JPEG"])
def test_plain_rgb_is_kept_byte_for_byte(tmp_path, name):
    path = save(tmp_path / name, RGB)
    assert images.read_encoded(path, 3) == path.read_bytes()
    assert images.read_header(path) == images.Header(12, 20, grey=False)


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_plain_grey_is_kept_for_grey_data_and_widened_for_rgb_data(tmp_path, name):
    path = save(tmp_path / name, GREY)
    assert images.read_header(path).grey
    assert images.read_encoded(path, 1) == path.read_bytes()
    wide = images.read_encoded(path, 3)
    with Image.open(io.BytesIO(wide)) as image:
        assert image.mode == "RGB"
    original = decode(path.read_bytes(), 1)[..., None].repeat(3, -1).astype(int)
    assert np.abs(decode(wide) - original).max() <= (0 if name.endswith("png") else 12)


@pytest.mark.parametrize("name", ["x.bmp", "x.webp", "x.tif", "x.ppm"])
def test_other_formats_become_png_without_loss(tmp_path, name):
    path = save(tmp_path / name, RGB, **({"lossless": True} if name == "x.webp" else {}))
    encoded = images.read_encoded(path, 3)
    assert encoded.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode(encoded), RGB)


def test_transparency_becomes_white(tmp_path):
    layer = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    layer[:6, :, 3] = 0
    layer[6, :, 3] = 128
    decoded = decode(images.read_encoded(save(tmp_path / "x.png", layer), 3))
    assert decoded[:6].min() == 255
    np.testing.assert_array_equal(decoded[7:], RGB[7:])
    np.testing.assert_allclose(decoded[6], (RGB[6].astype(int) + 255) / 2, atol=2)


def test_palettes_become_their_colours(tmp_path):
    flat = np.kron(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8), np.ones((8, 8, 1), np.uint8))
    path = save(tmp_path / "x.png", flat, "P")
    np.testing.assert_allclose(decode(images.read_encoded(path, 3)), flat, atol=60)
    assert not images.read_header(path).grey


def test_16_bit_grey_keeps_its_upper_byte(tmp_path):
    deep = (GREY.astype(np.uint16) << 8) + 77
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), deep)
    assert images.read_header(path).grey
    np.testing.assert_array_equal(decode(images.read_encoded(path, 1), 1), GREY)


def test_16_bit_rgb_is_converted_to_8(tmp_path):
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), RGB[..., ::-1].astype(np.uint16) * 257)
    encoded = images.read_encoded(path, 3)
    assert encoded[24] == 8, "bit depth"
    np.testing.assert_allclose(decode(encoded), RGB, atol=1)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_turn_is_carried_out_and_told_by_the_header(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.jpg", RGB, exif=exif, quality=100, subsampling=0)
    encoded = images.read_encoded(path, 3)
    expected = np.rot90(RGB, turns).astype(int)
    unturned = cv2.imdecode(
        np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    assert np.abs(unturned[..., ::-1] - expected).mean() < 6
    header = images.read_header(path)
    assert (header.height, header.width) == expected.shape[:2]
    assert (encoded == path.read_bytes()) == (orientation == 1)


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    path = save(tmp_path / "x.jpg", np.full((8, 8, 3), (200, 60, 90), np.uint8), "CMYK", quality=95)
    np.testing.assert_allclose(decode(images.read_encoded(path, 3))[4, 4], (200, 60, 90), atol=8)


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_a_cut_file_is_named(tmp_path, name):
    path = save(tmp_path / name, np.random.default_rng(1).integers(0, 256, (80, 80, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(
        DataError, match=rf"{path} is not a readable image \(.*\): replace or remove it"
    ) as caught:
        images.read_encoded(path, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff"])
def test_a_file_that_is_no_image_is_named_by_the_header_too(tmp_path, content):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path} is not a readable image \(format not recognised\)"):
        images.read_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.jpg is not a readable image"):
        images.read_encoded(tmp_path / "x.jpg", 3)


def test_png_encoder_is_lossless_in_rgb_order():
    np.testing.assert_array_equal(decode(images.encode_png(RGB)), RGB)
    np.testing.assert_array_equal(decode(images.encode_png(GREY), 1), GREY)


@pytest.mark.parametrize("size", [10, 15, 16, 30, 60, 77])
def test_what_lies_at_a_place_is_found_where_scaling_says(size):
    """A ramp to the right and one downwards, away from the border, where nothing lies beyond: within 1/4 pixel."""
    places = np.arange(60)
    ramps = [np.tile(4 * places, (60, 1)), np.tile(4 * places[:, None], (1, 60)), np.full((60, 60), 9)]
    found = images.scaled(np.stack(ramps, -1).astype(np.uint8), size).astype(float)
    expected = 4 * ((np.arange(size) + 0.5) * 60 / size - 0.5)
    inside = slice(1, -1)
    np.testing.assert_allclose(found[inside, inside, 0] - expected[None, inside], 0, atol=1)
    np.testing.assert_allclose(found[inside, inside, 1] - expected[inside, None], 0, atol=1)
    assert np.all(found[..., 2] == 9)


def test_shrinking_means_over_all_pixels():
    noise = np.random.default_rng(2).integers(0, 256, (24, 24, 3), np.uint8)
    blocks = noise.reshape(4, 6, 4, 6, 3).mean((1, 3))
    np.testing.assert_allclose(images.scaled(noise, 4), blocks, atol=0.51)


def test_photographs_stay_close_in_jpeg_and_keep_their_colours():
    ramp = np.stack(np.meshgrid(np.arange(0, 240, 8), np.arange(0, 240, 8)), -1)
    photograph = np.concatenate([ramp, 128 + 0 * ramp[..., :1]], -1).astype(np.uint8)
    encoded = images.encode_jpeg(photograph)
    assert encoded.startswith(b"\xff\xd8") and np.abs(decode(encoded) - photograph.astype(int)).max() <= 8


@pytest.mark.parametrize(("mode", "name"), [("RGB", "x.png"), ("L", "x.png"), ("1", "x.png"), ("P", "x.gif")])
def test_pixels_of_files_of_every_mode_are_those_that_were_saved(tmp_path, mode, name):
    shown = np.where(RGB[..., :1] > 127, np.uint8(255), np.uint8(0)).repeat(3, -1)
    path = save(tmp_path / name, shown, mode)
    np.testing.assert_array_equal(images.read_pixels(path, 3), shown)
    np.testing.assert_array_equal(images.read_pixels(path, 1), shown[..., 0])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"{path} is not a readable image"):
        images.read_pixels(path, 3)


@pytest.mark.parametrize("bytes_cut", [2, 4, 12, 20])
def test_a_png_without_its_very_end_is_kept_only_if_training_can_read_it(tmp_path, bytes_cut):
    path = save(tmp_path / "x.png", RGB)
    path.write_bytes(path.read_bytes()[:-bytes_cut])
    try:
        np.testing.assert_array_equal(decode(images.read_encoded(path, 3)), RGB)
    except DataError as error:
        assert str(path) in str(error) and "replace or remove it" in str(error)
