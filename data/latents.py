"""Latents of an image as the data sets keep them: float16 numbers in a PNG of four 16-bit channels, without loss.

So they are images to TFDS, `Image(shape=(h, w, 4), dtype=uint16)`, and bytes until they are asked for. What they are
the latents of, and by which scale they were multiplied, the maker says (experiments/encode_latents.py).
"""

import cv2
import numpy as np

CHANNELS = 4  # of them: config.data.channels
DTYPE = np.float32  # of a batch of them
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # their lower bits are noise, which no more effort makes smaller


def encode(latents: np.ndarray) -> bytes:
    """PNG bytes of floats [h, w, 4], which are rounded to float16."""
    halves = np.ascontiguousarray(latents, np.float16)
    return cv2.imencode(".png", halves.view(np.uint16), _FAST)[1].tobytes()


def decode(image: np.ndarray) -> np.ndarray:
    """float32 [h, w, 4] of what is in the PNG, uint16 [h, w, 4]."""
    return image.view(np.float16).astype(DTYPE)


def dtype_of(channels: int) -> type:
    """Of images of so many channels, on their way to the device."""
    return DTYPE if channels == CHANNELS else np.uint8
