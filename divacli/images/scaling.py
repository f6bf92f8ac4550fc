"""Pixel values of more than 8 bits as 8-bit grey: which of them are black and white."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

Limits = tuple[float, float]
"""The value that is black and the one that is white; black may be the larger one."""

SIXTEEN_BITS: Limits = (0, 65_535)

_ROWS = 256  # of values that are scaled at once

_NUMBER = r"-?[0-9][0-9.e+-]*"


@dataclass(frozen=True)
class PixelRange:
    """Which values are black and white in the images of more than 8 bits of a set, all alike.

    Attributes:
        integers: Of integers; None: all 16 bits, 0 and 65,535.
        floats: Of floating point numbers; None: each image for itself, 0 and 1 where it lies within these,
            else 0 and 255.
        sentence: What was found, for the user; "" where it is nothing new.
        seen: Whether the set has such images at all, as far as was looked.
    """

    integers: Limits | None = None
    floats: Limits | None = None
    sentence: str = field(default="", compare=False)
    seen: bool = field(default=False, compare=False)

    @classmethod
    def given(cls, limits: Limits) -> PixelRange:
        """The range that a user gives, of integers and floats alike.

        Args:
            limits: The value that is black and the one that is white.
        """
        return cls(limits, limits, seen=True)

    @property
    def text(self) -> str:
        """The range as text, a part of what features depend on: "" where both are None."""
        parts = [] if self.integers in (None, SIXTEEN_BITS) else [_written(self.integers)]
        if self.floats is not None:
            parts.append(f"floats {_written(self.floats)}")
        return "; ".join(parts)

    @classmethod
    def of_text(cls, text: str) -> PixelRange:
        """The range whose `text` it is.

        Raises:
            ValueError: It is of no range.
        """
        found = re.fullmatch(rf"(({_NUMBER})\.\.({_NUMBER}))?(; )?(floats ({_NUMBER})\.\.({_NUMBER}))?", text)
        if found is None:
            raise ValueError(f"{text!r} is no range of pixel values")
        return cls(_limits(found[2], found[3]), _limits(found[6], found[7]))


AS_STORED = PixelRange()
"""Nothing is known of a set: all 16 bits of integers, and floats image by image."""


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


def _written(limits: Limits | None) -> str:
    assert limits is not None
    return "..".join(f"{value:.17g}" for value in limits)


def _limits(low: str | None, high: str | None) -> Limits | None:
    return None if low is None or high is None else (float(low), float(high))
