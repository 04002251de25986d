"""Reading image files: a cheap look at the header, and bytes that any PNG or JPEG decoder reads alike.

JPEG and PNG files in 8-bit grey or RGB are kept byte for byte. Everything else (WebP, BMP, palettes, alpha,
CMYK, 16 bit, turned by EXIF) is converted, because decoders disagree about it.
"""

import dataclasses
import io
import pathlib
import warnings
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from data.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
Background = Literal["white", "black"]
_GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F", "LA")
_ORIENTATION = 0x0112  # EXIF tag
_PNG_BIT_DEPTH = 24  # offset of the byte in a PNG file


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say. Height and width are those after the EXIF turn."""

    height: int
    width: int
    grey: bool


def read_header(path: pathlib.Path) -> Header:
    """Raises DataError when the file is no image."""
    with _naming(path), Image.open(path) as image:
        turned = _orientation(image) >= 5  # 5..8 swap the axes
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        return Header(height, width, image.mode in _GREY_MODES)


def read_encoded(path: pathlib.Path, channels: int, background: Background = "white") -> bytes:
    """The file as PNG or JPEG bytes that decode to 8-bit images of `channels` (1 grey, 3 RGB).

    What is transparent shows the background.

    Raises:
        DataError: the file cannot be read or decoded to the end.
    """
    with _naming(path):
        encoded = path.read_bytes()
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()  # decodes every row: a cut or damaged file fails here
            if not _is_plain(image, encoded, channels):
                return _convert(image, channels, background)
        if cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED) is None:
            raise ValueError("its end is missing")  # Pillow forgives that; what reads it in training does not
        return encoded


def read_pixels(path: pathlib.Path, channels: int) -> np.ndarray:
    """The image decoded to its end: uint8 [h, w] of one channel (1, grey), or [h, w, 3] of three (RGB).

    Raises:
        DataError: the file cannot be read or decoded to the end.
    """
    with _naming(path), Image.open(path) as image:
        return np.asarray(_flatten(ImageOps.exif_transpose(image), channels, "white"))


def scaled(image: np.ndarray, size: int) -> np.ndarray:
    """A square image [s, s, 3] at `size` x `size`: each pixel the mean of what it covers, or linearly where it grows.

    What lies at x, (0, 0) the centre of the first pixel, lies at (x + 1/2) size / s - 1/2 then, exactly.
    """
    method = cv2.INTER_AREA if size < len(image) else cv2.INTER_LINEAR
    return image if size == len(image) else cv2.resize(image, (size, size), interpolation=method)


def encode_jpeg(image: np.ndarray) -> bytes:
    """JPEG bytes of a photograph, uint8 RGB [h, w, 3]; a PNG would be several times as large."""
    kept = [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), kept)[1].tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 image [h, w] or RGB [h, w, 3]."""
    ordered = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered)[1].tobytes()


def _is_plain(image: Image.Image, encoded: bytes, channels: int) -> bool:
    if image.mode != ("L" if channels == 1 else "RGB") or _orientation(image) != 1:
        return False
    return image.format == "JPEG" or (image.format == "PNG" and encoded[_PNG_BIT_DEPTH] == 8)


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif would decode all of it in search of one
    return image.getexif().get(_ORIENTATION, 1)


def _convert(image: Image.Image, channels: int, background: Background) -> bytes:
    # A photograph stays a JPEG (a PNG would be ten times as large); all else keeps every bit.
    jpeg = {"format": "JPEG", "quality": 95, "subsampling": 0}
    buffer = io.BytesIO()
    _flatten(ImageOps.exif_transpose(image), channels, background).save(
        buffer, **(jpeg if image.format == "JPEG" else {"format": "PNG"})
    )
    return buffer.getvalue()


def _flatten(image: Image.Image, channels: int, background: Background) -> Image.Image:
    """To mode L or RGB; what is transparent shows the background; 16 bit is scaled to 8."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer)
    return image.convert("L" if channels == 1 else "RGB")


class _naming:
    """Turns whatever an image library raises into one line that names the file."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._warnings = warnings.catch_warnings()

    def __enter__(self):
        self._warnings.__enter__()
        warnings.simplefilter("ignore")  # harmless oddities of metadata; what does not decode raises

    def __exit__(self, kind, error, trace):
        self._warnings.__exit__(kind, error, trace)
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise DataError(
                f"{self._path} is not a readable image ({_reason(error)}): replace or remove it"
            ) from error


def _reason(error: Exception) -> str:
    """The library's first line, without the object addresses that it may print."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return "format not recognised" if "cannot identify image file" in line else line
