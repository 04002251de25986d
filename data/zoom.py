"""A data set looked at through a longer lens: of each image the middle alone, its sides 1 / zoom of what is stored.

Nothing behind it need know: images are cut when they are decoded, and cameras and keypoints moved along.
"""

from dataclasses import replace

from data.boxes import zoomed_box
from data.errors import DataError
from data.sources import DataSet


def zoomed(dataset: DataSet, zoom: float) -> DataSet:
    """The data set so many times as near; itself where zoom is 1.

    Raises:
      DataError: zoom is below 1, not finite, leaves no pixel, or the data set holds latents.
    """
    if zoom == 1:
        return dataset
    height, width, channels = dataset.image_shape
    if not 1 <= zoom <= min(height, width):
        raise DataError(
            f"config.data.zoom = {zoom!r}: expected 1 (whole images) or more, and {min(height, width)} at most for "
            f"data set {dataset.name!r}"
        )
    if dataset.latents:
        raise DataError(f"config.data.zoom = {zoom!r}: data set {dataset.name!r} holds latents: set it to 1")
    box = zoomed_box(height, width, zoom)
    nearer = {"zoom": zoom, "corner": (box.left, box.top)}
    return replace(
        dataset,
        splits={name: replace(source, **nearer) for name, source in dataset.splits.items()},
        image_shape=(box.height, box.width, channels),
        manifest=f"{dataset.manifest} zoom {zoom}",
    )
