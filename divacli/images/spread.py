"""Choose some of many, spread evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def evenly(items: Sequence[_T], n: int) -> list[_T]:
    """Choose at most `n` of some items, spread evenly from the first one on, in their order.

    Args:
        items: To choose from.
        n: How many; 1 or more.
    """
    return list(items) if len(items) <= n else [items[place * len(items) // n] for place in range(n)]
