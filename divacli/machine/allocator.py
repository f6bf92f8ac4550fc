"""Memory that a forward pass frees is kept for the next one."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system; elsewhere do nothing.

    A network allocates and frees the same tens of megabytes for every layer of every batch. By default each
    of them is mapped, zeroed page by page and unmapped again, which takes as long as the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
