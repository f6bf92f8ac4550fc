"""Decode image files to upright 8-bit RGB, whatever is in them."""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

# Pillow warns of odd metadata and of large images, once for each of thousands of files. One filter set up on
# import and not one per image: `warnings.catch_warnings` is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# What Pillow's decoders raise on bad data: each format has its own habits.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)

MAX_PIXELS = 178_956_970
"""Of a larger image no pixel is decoded: a file of some kilobytes may hold any number of them. As 8-bit RGB
so many are 512 MiB; cameras make up to 151 million."""

MAX_STRETCH = 1_000
"""How many times one side may be the other. Transforms make the shorter side some hundred pixels: a line of
60,000 pixels would take all memory."""

# Pillow takes 1 MiB, and calls a PNG with a larger colour profile damaged. Profiles of printers have several.
PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20
PngImagePlugin.MAX_TEXT_MEMORY = 128 << 20

# By content, whatever the name: what files of `IMAGE_SUFFIXES` are. Pillow knows 40 formats more, some of
# which are programs (EPS runs Ghostscript) or read other files; no mislabelled file is to reach those.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")

_ROWS = 256  # of samples that are scaled at once

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndecodableImage(ValueError):
    """An image file that cannot be decoded whole; the message is the reason, in one line."""


class FailedCopy(ValueError):
    """An image of which a transform makes no copy; the message is the reason, in one line."""


def open_image(data: bytes) -> Image.Image:
    """Look at the beginning of an image file, its pixels not decoded yet.

    Args:
        data: The content of the file.

    Returns:
        The image, which has a size and a format; to be closed.

    Raises:
        UndecodableImage: Too many pixels, a line of pixels, damaged, or no image of the formats that diva
            reads.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise UndecodableImage(_reason(error)) from error
    # Pillow's own limit is a setting that any package may have lifted.
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise UndecodableImage(_too_large(image.width * image.height, MAX_PIXELS))
    if max(image.size) > MAX_STRETCH * min(image.size):
        image.close()
        raise UndecodableImage(
            f"{image.width:,} x {image.height:,} pixels: one side is more than {MAX_STRETCH:,} times the "
            "other"
        )
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode_image(data: bytes, least_side: int | None = None) -> Image.Image:
    """Decode an image file.

    An alpha channel is dropped, not blended with a background: this is what torchvision's folder loader does,
    so these are the pixels that networks were trained on. Samples of 16 bits are scaled to 8 bits, not
    clipped. Of floating point images those within [0, 1] are scaled by 255, others taken as 0 ... 255 and
    clipped. Of several frames or pages the first is taken. The EXIF orientation is applied.

    Args:
        data: The content of the file.
        least_side: Where the image is scaled down next, the shorter side in pixels that is enough for that: a
            JPEG is then decoded at 1/2, 1/4 or 1/8 of its size as long as it keeps as much. None: all pixels.

    Returns:
        The image, loaded, in mode RGB, upright.

    Raises:
        UndecodableImage: Empty, truncated, damaged, too large, or no image at all.
    """
    if not data:
        raise UndecodableImage("empty file (0 bytes)")
    try:
        with open_image(data) as image:
            if least_side is not None:
                image.draft(None, (least_side, least_side))  # of other formats it does nothing
            image.load()
            rgb = _to_rgb(image)
            method = _UPRIGHT.get(_orientation(image))
            return rgb if method is None else rgb.transpose(method)
    except UndecodableImage:
        raise
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise UndecodableImage(_reason(error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # 32-bit integers are 16-bit samples in a wide container: that is how Pillow hands out 16-bit PGM.
        return _grey(np.asarray(image), lambda rows: (rows.astype(np.int64).clip(0, 65_535) + 128) // 257)
    if image.mode == "F":
        samples = np.asarray(image)
        # Of NaN alone both are NaN, which is neither below 0 nor above 1.
        least, most = np.fmin.reduce(samples, axis=None), np.fmax.reduce(samples, axis=None)
        scale = 1 if least < 0 or most > 1 else 255
        return _grey(samples, lambda rows: (np.nan_to_num(rows, nan=0.0) * scale).round().clip(0, 255))
    if image.mode == "LAB":
        from PIL import ImageCms  # only here: LAB is rare, and colour management an optional part of Pillow

        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return to_srgb.apply(image)
    # A transparent colour says nothing about RGB, and Pillow warns of it in some palettes.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _grey(samples: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """A grey image from samples (h, w), some rows at a time: the largest images would take gigabytes.

    Args:
        samples: As decoded.
        scaled: From some rows of them to numbers from 0 to 255.
    """
    pixels = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _ROWS):
        pixels[start : start + _ROWS] = scaled(samples[start : start + _ROWS])
    return Image.fromarray(pixels).convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where the EXIF block is broken: no reason to refuse the image."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _too_large(pixels: int, limit: int) -> str:
    return f"too large: {pixels:,} pixels, the limit is {limit:,}; scale it down"


def _reason(error: BaseException) -> str:
    """Say in a few words what an error of Pillow means."""
    text = str(error).partition("\n")[0]
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    if isinstance(error, Image.DecompressionBombError):
        pixels, limit = (int(number) for number in re.findall(r"\d+", text)[:2])
        return _too_large(pixels, limit)
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated file"
    if isinstance(error, MemoryError):
        return "too large: it does not fit in memory"
    return f"damaged image: {text or type(error).__name__}"
