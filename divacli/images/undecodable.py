"""Why an image file is of no use."""

from __future__ import annotations


class UndecodableImage(ValueError):
    """An image file that cannot be decoded whole; the message is the reason, in one line."""
