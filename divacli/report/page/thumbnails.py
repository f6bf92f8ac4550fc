"""Small copies of images, made many at a time."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from divacli.errors import DivaError
from divacli.files.containers import reading_order
from divacli.files.path_or_url import read_bytes
from divacli.images.decode import UndecodableImage, decode_image
from divacli.images.scaling import AS_STORED, PixelRange

SIDE = 224
"""Longer side of a thumbnail in pixels, on a card."""

SMALL_SIDE = 80
"""Longer side of a neighbour's."""

_TINY = 48
"""Images with no longer side are kept as they are, without loss: their pixels are meant to be seen."""

_QUALITY = 78
_LARGE_SIDE, _LARGE_QUALITY = 1600, 92


def thumbnail(file: str, side: int = SIDE, pixels: PixelRange = AS_STORED) -> bytes | None:
    """A small upright copy of an image as WebP; None where there is no such image.

    Args:
        file: Absolute path, or URL.
        side: Longer side at the most.
        pixels: Which values of images of more than 8 bits are black and white.
    """
    image = _decoded(file, side, pixels)
    if image is None:
        return None
    lossless = max(image.size) <= _TINY
    if not lossless:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    content = io.BytesIO()
    image.save(content, "WEBP", lossless=lossless, quality=_QUALITY, method=4)
    return content.getvalue()


def large(file: str, pixels: PixelRange = AS_STORED) -> bytes | None:
    """An image as large as a screen, upright, as JPEG; None where there is no such image.

    Args:
        file: Absolute path, or URL.
        pixels: As for `thumbnail`.
    """
    image = _decoded(file, _LARGE_SIDE, pixels)
    if image is None:
        return None
    image.thumbnail((_LARGE_SIDE, _LARGE_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_LARGE_QUALITY)
    return content.getvalue()


def data_url(image: bytes | None) -> str | None:
    """A thumbnail for the `src` of an image in the page."""
    return None if image is None else f"data:image/webp;base64,{base64.b64encode(image).decode()}"


def thumbnails(
    files: Sequence[str], side: int, advance: Callable[[int], None], pixels: PixelRange = AS_STORED
) -> list[str | None]:
    """The thumbnails of many files as data URLs, in order; threads decode side by side.

    Args:
        files: Absolute paths, or URLs.
        side: Longer side at the most.
        advance: Told of every one that is done.
        pixels: As for `thumbnail`.
    """

    def made(position: int) -> tuple[int, str | None]:
        found = data_url(thumbnail(files[position], side, pixels))
        advance(1)
        return position, found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        by_position = dict(pool.map(made, reading_order(files)))
    return [by_position[position] for position in range(len(files))]


def _decoded(file: str, side: int, pixels: PixelRange) -> Image.Image | None:
    try:
        return decode_image(read_bytes(file), side, pixels)
    except (UndecodableImage, DivaError, OSError, ValueError):
        return None
