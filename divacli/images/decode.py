"""Decode image files to upright 8-bit RGB, whatever is in them."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from divacli.images.deep import colours_of, colours_to_rgb, deep_to_rgb, is_deep, other_bytes
from divacli.images.dicom import INVERTED, dicom_image
from divacli.images.heif import heif_image
from divacli.images.kinds import CONVERT, KINDS, START_BYTES, kind_of
from divacli.images.png import without_needless
from divacli.images.scaling import AS_STORED, PixelRange
from divacli.images.undecodable import UndecodableImage

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
    AssertionError,
    BufferError,
    struct.error,
    zlib.error,
)

MAX_PIXELS = 178_956_970
"""Of a larger image no pixel is decoded: a file of some kilobytes may hold any number of them. As 8-bit RGB
so many are 512 MiB; cameras make up to 151 million."""

MAX_STRETCH = 1_000
"""How many times one side may be the other. Transforms make the shorter side some hundred pixels: a line of
60,000 pixels would take all memory."""

# By content, whatever the name: what files of `IMAGE_SUFFIXES` are. Pillow knows 40 formats more, some of
# which are programs (EPS runs Ghostscript) or read other files; no mislabelled file is to reach those.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")

# Tags of TIFF: whether a picture is a smaller copy of another one, and where others lie.
_KIND_OF_PICTURE, _PICTURES_BELOW = 254, 330

# What decoders say of a file that was cut off.
_CUT_OFF = ("truncated", "unexpected end of file")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class FailedCopy(ValueError):
    """An image of which a transform makes no copy; the message is the reason, in one line."""


def open_image(data: bytes) -> Image.Image:
    """Look at the beginning of an image file, its pixels not decoded yet.

    Args:
        data: The content of the file.

    Returns:
        The image, which has a size and a format; to be closed.

    Raises:
        UndecodableImage: Empty, too many pixels, a line of pixels, damaged, of a format that diva does not
            read (the reason says which extra it needs, or that it wants converting), or no image at all.
    """
    if not data:
        raise UndecodableImage("empty file (0 bytes)")
    try:
        image = _opened(data)
    except UndecodableImage:
        raise
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


def _opened(data: bytes) -> Image.Image:
    """The image by whoever reads its format.

    Raises:
        UndecodableImage: It is of no format that is read here, or a thumbnail of something else.
    """
    try:
        image = Image.open(io.BytesIO(without_needless(data)), formats=_formats())
    except UnidentifiedImageError:
        return _opened_by_extras(data)
    if isinstance(image, TiffImageFile) and _is_raw(image):
        image.close()
        raise UndecodableImage(f"a raw image of a camera, of which only a thumbnail can be read: {CONVERT}")
    return image


def _opened_by_extras(data: bytes) -> Image.Image:
    """An image that is none of Pillow's."""
    name = kind_of(data[:START_BYTES])
    if name is None:
        raise UndecodableImage("not an image, or of an unknown format")
    image = heif_image(data) if name == "HEIC" else dicom_image(data) if name == "DICOM" else None
    if image is not None:
        return image
    if name in _formats():
        raise UndecodableImage(f"damaged: it begins as {KINDS[name].called} and cannot be read")
    raise UndecodableImage(KINDS[name].refusal)


def _is_raw(image: TiffImageFile) -> bool:
    """Whether the first picture in a TIFF file is a small one, with the large one in a folder below it."""
    kind = image.tag_v2.get(_KIND_OF_PICTURE, 0)
    return _PICTURES_BELOW in image.tag_v2 and isinstance(kind, int) and bool(kind & 1)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode_image(data: bytes, least_side: int | None = None, pixels: PixelRange = AS_STORED) -> Image.Image:
    """Decode an image file.

    An alpha channel is dropped, not blended with a background: this is what torchvision's folder loader does,
    so these are the pixels that networks were trained on. Values of more than 8 bits are scaled as `pixels`
    says: where nothing is known of the set, 16 bits as a whole, floating point images within [0, 1] by 255,
    and other ones are taken as 0 ... 255 and clipped. Of several frames or pages the first is taken. The EXIF
    orientation is applied.

    Args:
        data: The content of the file.
        least_side: Where the image is scaled down next, the shorter side in pixels that is enough for that: a
            JPEG is then decoded at 1/2, 1/4 or 1/8 of its size as long as it keeps as much. None: all pixels.
        pixels: Which values of an image of more than 8 bits are black and white.

    Returns:
        The image, loaded, in mode RGB, upright.

    Raises:
        UndecodableImage: Empty, truncated, damaged, too large, or no image at all.
    """
    with loaded_image(data, least_side) as image:
        with _low_bytes(data, image, wanted=bool(pixels.text) and pixels.integers is not None) as low:
            rgb = _to_rgb(image, pixels) if low is None else colours_to_rgb(image, low, pixels)
        if image.info.get(INVERTED):
            rgb = ImageOps.invert(rgb)
        method = _UPRIGHT.get(orientation_of(image))
        return rgb if method is None else rgb.transpose(method)


@contextlib.contextmanager
def loaded_image(data: bytes, least_side: int | None = None) -> Iterator[Image.Image]:
    """Decode an image file to the values that it holds.

    Args:
        data: The content of the file.
        least_side: As for `decode_image`.

    Yields:
        The image, loaded, of whichever mode it has, as it is stored. It is closed afterwards.

    Raises:
        UndecodableImage: As of `decode_image`, also of what decoders raise while it is in use.
    """
    try:
        with open_image(data) as image:
            if least_side is not None:
                image.draft(None, (least_side, least_side))  # of other formats it does nothing
            image.load()
            yield image
    except UndecodableImage:
        raise
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise UndecodableImage(_reason(error)) from error


@contextlib.contextmanager
def deep_values(data: bytes) -> Iterator[np.ndarray | None]:
    """Decode an image file to its values where these have more than 8 bits.

    Args:
        data: The content of the file.

    Yields:
        Grey values (h, w) of integers or float32, or colours (h, w, 3) uint16; None of an image of 8 bits.

    Raises:
        UndecodableImage: As of `decode_image`.
    """
    with loaded_image(data) as image:
        if is_deep(image.mode):
            yield np.asarray(image)
            return
        with _low_bytes(data, image) as low:
            yield None if low is None else colours_of(image, low)


@contextlib.contextmanager
def _low_bytes(data: bytes, image: Image.Image, *, wanted: bool = True) -> Iterator[Image.Image | None]:
    """The low bytes of an image whose high bytes were decoded; None where it has no colours of 16 bits."""
    if not wanted or not image.mode.startswith("RGB"):
        yield None
        return
    with open_image(data) as low:
        if other_bytes(low):
            low.load()
            yield low
        else:
            yield None


def _to_rgb(image: Image.Image, pixels: PixelRange) -> Image.Image:
    if is_deep(image.mode):
        return deep_to_rgb(image, pixels)
    if image.mode == "LAB":
        from PIL import ImageCms  # only here: LAB is rare, and colour management an optional part of Pillow

        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return to_srgb.apply(image)
    # A transparent colour says nothing about RGB, and Pillow warns of it in some palettes.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation; 1, upright, where the EXIF block is broken: no reason to refuse the image.

    Args:
        image: Opened, its pixels decoded or not.
    """
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _too_large(pixels: int, limit: int) -> str:
    return f"too large: {pixels:,} pixels, the limit is {limit:,}; scale it down"


def _reason(error: BaseException) -> str:
    """Say in a few words what an error of Pillow means."""
    text = str(error).partition("\n")[0]
    if isinstance(error, Image.DecompressionBombError):
        pixels, limit = (int(number) for number in re.findall(r"\d+", text)[:2])
        return _too_large(pixels, limit)
    if isinstance(error, EOFError) or any(word in text.lower() for word in _CUT_OFF):
        return "truncated file"
    if isinstance(error, MemoryError):
        return "too large: it does not fit in memory"
    return f"damaged image: {text or type(error).__name__}"
