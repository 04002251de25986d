"""What must fit before anything is computed; each error names the config key and what would fit."""

from collections.abc import Iterable


def check_choice(key: str, value: str | int, legal: Iterable) -> None:
    """Raise ValueError that names the config key unless the value is legal."""
    if value not in legal:
        raise ValueError(f"{key}={value!r} is unknown: take one of {', '.join(map(str, legal))}")


def check_patch(
    height: int, width: int, patch: int, size: str = "data.source_size", key: str = "model.vit_patch"
) -> None:
    """Raise ValueError, naming the keys of both, unless the patch divides both sides of the image."""
    if height % patch or width % patch:
        raise ValueError(
            f"{size}: {height}x{width} images do not fit {key}={patch}; take a multiple of {patch}"
        )


def check_image_size(height: int, width: int, patch: int, levels: int) -> None:
    """Raise ValueError, with the sizes that fit, unless an image of these sides can be halved at each level."""
    unit = patch * 2 ** (levels - 1)
    for size in (height, width):
        if size % unit:
            lower = max(size // unit, 1) * unit
            fit = f"{lower} fits" if lower > size else f"{lower} and {lower + unit} fit"
            raise ValueError(
                f"data.image_size={size} does not fit model.patch={patch} and the {levels} levels of "
                f"model.multipliers: it must be a multiple of {unit} ({fit})"
            )
