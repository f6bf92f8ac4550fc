"""Images of more than 8 bits as 8-bit grey."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from divacli.images.scaling import AS_STORED, SIXTEEN_BITS, Limits, PixelRange

_ROWS = 256  # of values that are scaled at once

# Of colours of 16 bits Pillow's decoders take the high bytes, unless they are told the other order of bytes.
_DEEP_COLOURS = re.compile("(RGB|RGBA|RGBX);16([BLN])")
_OTHER_END = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


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
            return _eight_bits(values, lambda rows: (rows.astype(np.int64).clip(0, 65_535) + 128) // 257)
        return _eight_bits(values, _between(pixels.integers))
    if pixels.floats is not None:
        return _eight_bits(values, _between(pixels.floats))
    # Of NaN alone both are NaN, which is neither below 0 nor above 1.
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    scale = 1 if least < 0 or most > 1 else 255
    return _eight_bits(values, lambda rows: (np.nan_to_num(rows, nan=0.0) * scale).round().clip(0, 255))


def _between(limits: Limits) -> Callable[[np.ndarray], np.ndarray]:
    """How to scale rows of values so that the limits become 0 and 255; NaN becomes 0."""
    black, white = limits
    low, high = sorted(limits)

    def scaled(rows: np.ndarray) -> np.ndarray:
        inside = rows.astype(np.float64).clip(low, high)
        return np.nan_to_num((inside - black) * (255 / (white - black)), nan=0.0).round()

    return scaled


def other_bytes(image: Image.Image) -> bool:
    """Have the low bytes of colours of 16 bits decoded, in place of the high bytes that Pillow takes.

    Args:
        image: Opened, its pixels not decoded yet.

    Returns:
        Whether it has such colours; if not, nothing was changed.
    """
    tiles = getattr(image, "tile", None) or []
    swapped = []
    for tile in tiles:
        codec, extents, offset, args = tile
        found = _DEEP_COLOURS.fullmatch(str(args[0] if isinstance(args, tuple) else args))
        if found is None:
            return False
        mode = f"{found[1]};16{_OTHER_END[found[2]]}"
        made = (codec, extents, offset, (mode, *args[1:]) if isinstance(args, tuple) else mode)
        # Newer releases of Pillow have names for the parts.
        swapped.append(tile._make(made) if hasattr(tile, "_make") else made)
    if swapped:
        image.tile = swapped  # type: ignore[attr-defined]
    return bool(swapped)


def colours_to_rgb(high: Image.Image, low: Image.Image, pixels: PixelRange) -> Image.Image:
    """Scale colours of 16 bits to 8-bit RGB.

    Args:
        high: Their high bytes.
        low: Their low bytes.
        pixels: Which values are black and white, in each colour.
    """
    return _eight_bits(colours_of(high, low), _between(pixels.integers or SIXTEEN_BITS))


def colours_of(high: Image.Image, low: Image.Image) -> np.ndarray:
    """The values (h, w, 3) uint16 of colours of 16 bits, from their high and their low bytes."""
    values = np.asarray(high)[..., :3].astype(np.uint16)
    values <<= 8
    values |= np.asarray(low)[..., :3]
    return values


def _eight_bits(values: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """An RGB image from values (h, w) or (h, w, 3), some rows at a time: all would take gigabytes.

    Args:
        values: As decoded.
        scaled: From some rows of them to numbers from 0 to 255.
    """
    pixels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        pixels[start : start + _ROWS] = scaled(values[start : start + _ROWS])
    return Image.fromarray(pixels).convert("RGB")
