"""Which pixel values of more than 8 bits are black and white."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Limits = tuple[float, float]
"""The value that is black and the one that is white; black may be the larger one."""

SIXTEEN_BITS: Limits = (0, 65_535)

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


def _written(limits: Limits | None) -> str:
    assert limits is not None
    return "..".join(f"{value:.17g}" for value in limits)


def _limits(low: str | None, high: str | None) -> Limits | None:
    return None if low is None or high is None else (float(low), float(high))
