"""Images of more than 8 bits as 8-bit grey."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from divacli.images.scaling import AS_STORED, SIXTEEN_BITS, Limits, PixelRange

_ROWS = 256  # of values that are scaled at once


def is_deep(mode: str) -> bool:
    """Whether an image of a mode of Pillow has values of more than 8 bits.

    Args:
        mode: As Pillow calls it.
    """
    return mode in ("I", "F") or mode.startswith("I;16")


def deep_to_rgb(image: Image.Image, pixels: PixelRange = AS_STORED) -> Image.Image:
    """Scale an image of more than 8 bits to 8-bit RGB.

    Args:
        image: Of a mode that `is_deep`, loaded.
        pixels: Which values are black and white; others are clipped.

    Returns:
        Grey, in mode RGB.
    """
    values = np.asarray(image)
    if image.mode != "F":
        if pixels.integers in (None, SIXTEEN_BITS):
            # 32-bit integers are 16-bit values in a wide container: that is how Pillow hands out 16-bit PGM.
            return _grey(values, lambda rows: (rows.astype(np.int64).clip(0, 65_535) + 128) // 257)
        return _grey(values, _between(pixels.integers))
    if pixels.floats is not None:
        return _grey(values, _between(pixels.floats))
    # Of NaN alone both are NaN, which is neither below 0 nor above 1.
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    scale = 1 if least < 0 or most > 1 else 255
    return _grey(values, lambda rows: (np.nan_to_num(rows, nan=0.0) * scale).round().clip(0, 255))


def _between(limits: Limits) -> Callable[[np.ndarray], np.ndarray]:
    """How to scale rows of values so that the limits become 0 and 255; NaN becomes 0."""
    black, white = limits
    low, high = sorted(limits)

    def scaled(rows: np.ndarray) -> np.ndarray:
        inside = rows.astype(np.float64).clip(low, high)
        return np.nan_to_num((inside - black) * (255 / (white - black)), nan=0.0).round()

    return scaled


def _grey(values: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """A grey image from values (h, w), some rows at a time: the largest images would take gigabytes.

    Args:
        values: As decoded.
        scaled: From some rows of them to numbers from 0 to 255.
    """
    pixels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        pixels[start : start + _ROWS] = scaled(values[start : start + _ROWS])
    return Image.fromarray(pixels).convert("RGB")
