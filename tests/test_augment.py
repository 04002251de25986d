"""RandAugment's operations against Pillow, which torchvision applies, and its strengths."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from data import augment


def picture(kind: str, size: int = 33) -> np.ndarray:
    """Smooth colours with an edge, a flat corner and some noise; "grey" has no channel axis."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([40 + 150 * x, 200 - 120 * y, 90 + 60 * np.sin(5 * x)], -1) + rng.normal(
        0, 9, (size, size, 3)
    )
    image[size // 2 :, : size // 2] = (20, 30, 40)
    image = np.clip(image, 5, 245).astype(np.uint8)
    return image[:, :, 0] if kind == "grey" else image


def difference(ours: np.ndarray, theirs) -> int:
    """The largest difference in grey levels."""
    assert ours.dtype == np.uint8 and ours.shape == np.shape(theirs)
    return int(np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max())


@pytest.mark.parametrize("kind", ["grey", "rgb"])
@pytest.mark.parametrize("change", [-0.9, -0.27, 0.27, 0.9])
@pytest.mark.parametrize(
    "ours, theirs",
    [
        (augment.brightness, ImageEnhance.Brightness),
        (augment.contrast, ImageEnhance.Contrast),
        (augment.colour, ImageEnhance.Color),
    ],
)
def test_blends_are_pillows(ours, theirs, change, kind):
    image = picture(kind)
    assert difference(ours(image, change), theirs(Image.fromarray(image)).enhance(1 + change)) <= 2


@pytest.mark.parametrize("kind", ["grey", "rgb"])
@pytest.mark.parametrize("change", [-0.9, 0.27, 0.9])
def test_sharpness_is_pillows_but_at_the_border(change, kind):
    image = picture(kind)
    theirs = np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(1 + change))
    assert difference(augment.sharpness(image, change)[1:-1, 1:-1], theirs[1:-1, 1:-1]) <= 1


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_tables_are_pillows(kind):
    image = picture(kind)
    pillow = Image.fromarray(image)
    assert difference(augment.posterize(image, 4), ImageOps.posterize(pillow, 4)) == 0
    assert difference(augment.posterize(image, 8), image) == 0
    assert difference(augment.solarize(image, 178.5), ImageOps.solarize(pillow, 178.5)) == 0
    assert difference(augment.equalize(image, 0), ImageOps.equalize(pillow)) == 0
    assert difference(augment.autocontrast(image, 0), ImageOps.autocontrast(pillow)) <= 1


@pytest.mark.parametrize("kind", ["grey", "rgb"])
@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_survive_everything(kind, level):
    image = np.full_like(picture(kind), level)
    for operation in (augment.equalize, augment.autocontrast, augment.identity):
        assert difference(operation(image, 0.0), image) == 0
    assert difference(augment.contrast(image, 0.9), image) == 0


def test_a_few_equal_values_are_not_equalized():
    """Pillow leaves an image alone whose histogram has fewer than 255 values to share out."""
    image = np.zeros((16, 16), np.uint8)
    image[0, 0] = 9
    assert difference(augment.equalize(image, 0.0), ImageOps.equalize(Image.fromarray(image))) == 0


@pytest.mark.parametrize("operation", [operation.apply for operation in augment.OPERATIONS])
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_no_operation_changes_its_input(operation, kind):
    image = picture(kind)
    before = image.copy()
    out = operation(image, 4.0 if operation is augment.posterize else 0.3)
    assert (image == before).all() and out.shape == image.shape and out.dtype == np.uint8


def strengths(u: float) -> dict[str, float]:
    return {operation.apply.__name__: operation.strength(u) for operation in augment.OPERATIONS}


def test_strengths_are_torchvisions():
    """Magnitude 30 is the strongest, 9 the default, 0 nothing: torchvision's RandAugment with 31 bins."""
    full, usual = strengths(30 / 30), strengths(9 / 30)
    assert full["rotate"] == 30 and usual["rotate"] == pytest.approx(9)
    assert full["shear_x"] == full["shear_y"] == 0.3 and usual["shear_x"] == pytest.approx(0.09)
    assert full["translate_x"] == full["translate_y"] == 150 / 331
    for blend in ("brightness", "colour", "contrast", "sharpness"):
        assert full[blend] == 0.9 and usual[blend] == pytest.approx(0.27)
    assert (full["posterize"], usual["posterize"], strengths(0)["posterize"]) == (4, 7, 8)
    assert (full["solarize"], usual["solarize"], strengths(0)["solarize"]) == (0, pytest.approx(178.5), 255)


def test_posterize_keeps_torchvisions_bits_in_every_bin():
    bins = 8 - np.round(np.arange(31) / (30 / 4)).astype(int)
    assert [strengths(m / 30)["posterize"] for m in range(31)] == bins.tolist()


def test_signs_are_torchvisions():
    signed = {o.apply.__name__ for o in augment.OPERATIONS if o.signed}
    geometry = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}
    assert signed == geometry | {"brightness", "colour", "contrast", "sharpness"}
    assert len({o.apply for o in augment.OPERATIONS}) == len(augment.OPERATIONS) == 14


def test_operations_and_signs_are_drawn_evenly(monkeypatch):
    seen = Counter()

    def spy(operation):
        name = operation.apply.__name__
        return operation._replace(
            apply=lambda image, strength: seen.update([name, (name, strength > 0)]) or image
        )

    monkeypatch.setattr(augment, "OPERATIONS", tuple(map(spy, augment.OPERATIONS)))
    image, rng = picture("grey"), np.random.default_rng(0)
    for _ in range(1400):
        augment.rand_augment(image, rng, 2, 30)
    names = [key for key in seen if isinstance(key, str)]
    assert len(names) == 14 and all(150 < seen[name] < 250 for name in names)
    assert seen["rotate", True] > 70 and seen["rotate", False] > 70


def test_no_operations_leave_the_image():
    image = picture("rgb")
    assert augment.rand_augment(image, np.random.default_rng(0), 0, 9) is image


def test_magnitude_zero_changes_nothing_but_by_the_histogram():
    image = picture("grey")
    for operation in augment.OPERATIONS:
        changed = difference(operation.apply(image, operation.strength(0.0)), image)
        assert (changed > 0) == (operation.apply in (augment.autocontrast, augment.equalize))
