"""SODA's two views by torchvision: what a PyTorch user would write, for `pipeline_speed`."""

import functools
import io
from collections.abc import Iterator
from typing import Any

from data.views import Views

# Operators that `import torchvision` asks for. They are compiled for CUDA; the transforms never call them.
UNUSED_OPERATORS = [
    f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor" for name in ("nms", "qnms")
]


def batches(encoded: list[bytes], views: Views, batch: int) -> Iterator[dict[str, Any]]:
    """Endless shuffled batches {"source", "target"} of uint8 tensors `[b, c, h, w]`.

    Raises ImportError where torch or torchvision is not installed.
    """
    torch, transforms = import_torchvision()
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        _dataset(torch, encoded, two_views(transforms, views)), batch_size=batch, shuffle=True, drop_last=True
    )
    return _endless(loader)


def import_torchvision() -> tuple[Any, Any]:
    """torch, and torchvision.transforms, with or without torchvision's compiled part."""
    import torch

    try:
        from torchvision import transforms
    except RuntimeError:  # a CUDA torchvision beside the CPU build of torch
        _declare_operators(torch)
        from torchvision import transforms
    return torch, transforms


@functools.cache
def _declare_operators(torch: Any) -> Any:
    """Declares what the import looks for; cached, since the declarations die with the library object."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in UNUSED_OPERATORS:
        library.define(schema)
    return library


def two_views(transforms: Any, views: Views) -> Any:
    """Encoded bytes -> {"source", "target"}, with the same probabilities as ours; its defaults elsewhere."""
    from PIL import Image

    source, target = (one_view(transforms, views, size) for size in (views.source_size, views.image_size))

    def make(encoded: bytes) -> dict[str, Any]:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        return {"source": source(image), "target": target(image)}

    return make


def one_view(transforms: Any, views: Views, size: int) -> Any:
    """Crop and flip, or the middle square; then perhaps RandAugment; then a uint8 tensor."""
    crop = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, views.crop_scale, views.crop_ratio),
            transforms.RandomHorizontalFlip(views.flip_prob),
        ]
    )
    middle = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    augment = transforms.RandAugment(views.randaugment_ops, views.randaugment_magnitude)
    return transforms.Compose(
        [
            transforms.RandomChoice([crop, middle], p=[views.crop_prob, 1 - views.crop_prob]),
            transforms.RandomApply([augment], p=views.randaugment_prob),
            transforms.PILToTensor(),
        ]
    )


def _dataset(torch: Any, encoded: list[bytes], make: Any) -> Any:
    class Pairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(encoded)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return make(encoded[index])

    return Pairs()


def _endless(loader: Any) -> Iterator[dict[str, Any]]:
    while True:
        yield from loader
