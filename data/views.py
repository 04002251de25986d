"""Two views of one example: the source that is encoded and the target that is denoised.

`pair="augment"`: both are drawn from one image, independently: with `crop_prob` a random resized crop and,
with `flip_prob`, its mirror image; then with `randaugment_prob` RandAugment. With `crop_pad` the crop is not resized:
it is a part, as large as the view, of the view with so much black around it. `pair="pose"`: two different
cameras of one scene, or images of one group, untouched. `pair="pose_augment"`: the same, each augmented as above. Of
those there may be several sources, all of them different from each other and from the target. `pair="same"`: one image,
untouched, as both, which makes an auto-encoder of SODA, to compare with: its authors credit novel views in their place.

Cameras travel beside untouched views: camera-to-world matrices as they are stored, and intrinsics for images whose
sides have length 1, (0, 0) their upper left corner, so that they hold at any resolution. Stored intrinsics are in
pixels, (0, 0) the middle of the first (OpenCV).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np

from data import augment, boxes, latents
from data.errors import DataError

Pair = Literal["augment", "pose", "pose_augment", "same"]
SINGLE = ("augment", "same")  # those that need no more than one image of an example
UNTOUCHED = ("pose", "same")
_FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB, latents.CHANNELS: cv2.IMREAD_UNCHANGED}


class Near(NamedTuple):
    """An image of which the middle alone is looked at, its sides 1 / zoom of the whole."""

    encoded: bytes
    zoom: float

    def cut(self, image: np.ndarray) -> np.ndarray:
        """That part of the decoded image."""
        box = boxes.zoomed_box(*image.shape[:2], self.zoom)
        return np.ascontiguousarray(boxes.part_of(image, box))


def near(encoded: Sequence[bytes], zoom: float) -> list[bytes] | list[Near]:
    """The same images, so many times as near."""
    return list(encoded) if zoom == 1 else [Near(image, zoom) for image in encoded]


def decode(encoded: bytes | Near, channels: int) -> np.ndarray:
    """PNG or JPEG bytes to uint8 `[h, w]` (channels=1) or RGB `[h, w, 3]` (channels=3), whatever they hold.

    Of latents (channels=4), which they must hold: float32 `[h, w, 4]`.

    Raises:
        DataError: the bytes are not a whole image.
    """
    if isinstance(encoded, Near):
        return encoded.cut(decode(encoded.encoded, channels))
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), _FLAGS[channels]) if encoded else None
    if image is None:
        raise DataError(
            f"expected an encoded image, found {len(encoded)} bytes that cannot be decoded: the data set in "
            "config.data.dir is damaged, delete its folder and prepare it again"
        )
    return latents.decode(image) if channels == latents.CHANNELS else image


def with_channels(image: np.ndarray) -> np.ndarray:
    """`[h, w]` or `[h, w, 3]` to `[h, w, c]`."""
    return image if image.ndim == 3 else image[:, :, None]


def plain_view(encoded: bytes | Near, size: int, channels: int) -> np.ndarray:
    """The middle square, scaled: uint8 `[size, size, channels]`."""
    return with_channels(augment.centre_crop(decode(encoded, channels), size))


def cameras_of(
    example: Mapping[str, Any], source: int | Sequence[int], target: int, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """source_camera [4, 4], or [v, 4, 4] of several, target_camera [4, 4] and intrinsics [3, 3].

    shape: of the images, (h, w, ...).
    """
    height, width = shape[:2]
    corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], np.float32)  # (0, 0) to the corner of the pixel
    unit = np.diag(np.array([1 / width, 1 / height, 1], np.float32))
    return {
        "source_camera": np.asarray(example["camera_to_world"])[source],
        "target_camera": example["camera_to_world"][target],
        "intrinsics": unit @ corner @ example["intrinsics"],
    }


@dataclass(frozen=True, kw_only=True)
class Views:
    """How source and target are made; every field but the last two is the `config.data` key of its name.

    Raises:
        DataError: a value is outside of its range; the message names the key.
    """

    image_size: int  # side of the target, pixels
    source_size: int  # side of the source, pixels
    channels: int = 3  # 1 or 3; other images are converted. 4: of latents, float32 in the place of uint8
    crop_prob: float = 0.95
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    crop_pad: int = (
        0  # pixels of black around the view, which is then cropped out of it; 0: crops are resized
    )
    flip_prob: float = 0.5  # given that the view is cropped
    randaugment_prob: float = 0.65
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9  # 0..30
    augment_target: bool = True  # False: the target is the plain image
    pair: Pair = "augment"
    sources: int = 1  # views that are encoded together; more than one needs cameras
    cameras: bool = False  # whether the cameras of both views travel with them; needs untouched views
    labels: bool = False  # whether the classes of the example do

    def __post_init__(self):
        for key, legal in _rules(self).items():
            if not legal:
                raise DataError(f"config.data.{key} = {getattr(self, key)!r}: expected {_EXPECTED[key]}")

    @property
    def draws(self) -> int:
        """How many random numbers `two_views` takes at most."""
        return (1 + self.sources) * (1 + 2 * augment.CROP_TRIES + 2 + 3 + 2 * self.randaugment_ops)

    def two_views(self, example: Mapping[str, Any], rng: augment.Uniform) -> dict[str, Any]:
        """Source uint8 `[source_size, source_size, c]`, target `[image_size, image_size, c]`, index int32.

        With `labels`: labels int32 `[l]`, in the data set's order. With `cameras`:
        source_camera, target_camera `[4, 4]` and intrinsics `[3, 3]`, float32, too. Several sources
        and their cameras stand along a further first axis.
        """
        *chosen, last = self._pick(len(example["images"]), rng)
        images = {i: decode(example["images"][i], self.channels) for i in (*chosen, last)}
        views = [self.source_view(images[i], self.source_size, rng) for i in chosen]
        return {
            "source": self._together(views),
            "target": self._target_view(images[last], rng),
            "index": np.int32(example["index"]),
            **({"labels": np.array([*example["labels"].values()], np.int32)} if self.labels else {}),
            **self._cameras(example, chosen, last, images[last].shape),
        }

    def plain_pair(self, example: Mapping[str, Any], which: int = 0) -> dict[str, Any]:
        """One image, untouched, as source and as target; what `two_views` returns but the index.

        Of several sources it is the first; the others are the images that follow, and after the last one the first.
        """
        chosen = [(which + i) % len(example["images"]) for i in range(self.sources)]
        images = [decode(example["images"][i], self.channels) for i in chosen]
        views = [with_channels(augment.centre_crop(image, self.source_size)) for image in images]
        return {
            "source": self._together(views),
            "target": with_channels(augment.centre_crop(images[0], self.image_size)),
            **self._cameras(example, chosen, which, images[0].shape),
        }

    def _together(self, views: list[Any]) -> Any:
        """What there is of each source: along an axis of their own, where there are several."""
        return np.stack(views) if self.sources > 1 else views[0]

    def _cameras(
        self, example: Mapping[str, Any], chosen: list[int], last: int, shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        if not self.cameras:
            return {}
        return cameras_of(example, chosen if self.sources > 1 else chosen[0], last, shape)

    def source_view(self, image: np.ndarray, size: int, rng: augment.Uniform) -> np.ndarray:
        """A view of a decoded image as the encoder sees it in training: uint8 `[size, size, c]`."""
        return with_channels(
            augment.centre_crop(image, size) if self.pair in UNTOUCHED else self._draw(image, size, rng)
        )

    def _target_view(self, image: np.ndarray, rng: augment.Uniform) -> np.ndarray:
        if self.augment_target:
            return self.source_view(image, self.image_size, rng)
        return with_channels(augment.centre_crop(image, self.image_size))

    def _pick(self, count: int, rng: augment.Uniform) -> list[int]:
        """Which images of the example are the sources, and then the target; with cameras all are different."""
        first = augment.draw_below(rng, count) if count > 1 else 0
        if self.pair in SINGLE:
            return [first, first]
        others = [(first + i) % count for i in range(1, count)]
        return [first, *(others.pop(augment.draw_below(rng, len(others))) for _ in range(self.sources))]

    def _draw(self, image: np.ndarray, size: int, rng: augment.Uniform) -> np.ndarray:
        image = (
            self._crop(image, size, rng)
            if rng.random() < self.crop_prob
            else augment.centre_crop(image, size)
        )
        if rng.random() < self.randaugment_prob:
            return augment.rand_augment(image, rng, self.randaugment_ops, self.randaugment_magnitude)
        return image

    def _crop(self, image: np.ndarray, size: int, rng: augment.Uniform) -> np.ndarray:
        if self.crop_pad:
            view = augment.padded_crop(rng, augment.centre_crop(image, size), self.crop_pad)
        else:
            box = augment.random_box(rng, *image.shape[:2], self.crop_scale, self.crop_ratio)
            view = augment.resized_crop(image, box, size)
        return augment.flip(view) if rng.random() < self.flip_prob else view


_PROBABILITY = "a probability in [0, 1]"
_EXPECTED = {
    "image_size": "a positive number of pixels",
    "source_size": "a positive number of pixels",
    "channels": "1 (grey), 3 (RGB) or 4 (latents)",
    "crop_prob": _PROBABILITY,
    "crop_scale": "(low, high), shares of the area with 0 < low <= high <= 1",
    "crop_ratio": "(low, high), width / height with 0 < low <= high",
    "crop_pad": "a number of pixels, 0 (none) or more",
    "flip_prob": _PROBABILITY,
    "randaugment_prob": _PROBABILITY,
    "randaugment_ops": "a number of operations, 0 or more",
    "randaugment_magnitude": f"a whole number in 0..{augment.BINS - 1}",
    "pair": f"one of {get_args(Pair)}, and 'same' of latents (channels = 4)",
    "sources": "1 or more, and 1 for pair = 'augment' and 'same'",
}


def _rules(views: Views) -> dict[str, bool]:
    probabilities = {k: 0 <= getattr(views, k) <= 1 for k in ("crop_prob", "flip_prob", "randaugment_prob")}
    return probabilities | {
        "image_size": views.image_size > 0,
        "source_size": views.source_size > 0,
        "channels": views.channels in _FLAGS,
        "crop_scale": _is_range(views.crop_scale) and views.crop_scale[1] <= 1,
        "crop_ratio": _is_range(views.crop_ratio),
        "crop_pad": views.crop_pad >= 0,
        "randaugment_ops": views.randaugment_ops >= 0,
        "randaugment_magnitude": views.randaugment_magnitude in range(augment.BINS),
        "pair": views.pair in (("same",) if views.channels == latents.CHANNELS else get_args(Pair)),
        "sources": views.sources == 1 or (views.sources > 1 and views.pair not in SINGLE),
    }


def _is_range(pair: tuple[float, float]) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1]
