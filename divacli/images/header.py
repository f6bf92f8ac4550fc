"""What the beginning of an image file says, its pixels not decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from divacli.errors import DataError
from divacli.files.containers import contained
from divacli.files.path_or_url import place_of, read_bytes, read_range
from divacli.files.regular import reason
from divacli.files.urls import is_url
from divacli.images.decode import open_image, orientation_of
from divacli.images.deep import is_deep, other_bytes
from divacli.images.undecodable import UndecodableImage

START_BYTES = 1 << 16
"""So many bytes are read first: in most files they say all of this."""


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        format: As Pillow calls it, or DICOM or HEIF.
        mode: As Pillow calls it: of how many bits and colours the pixels are.
        width: In pixels, as stored.
        height: In pixels, as stored.
        deep: Whether its values have more than 8 bits, and become 8 bits by a range.
        orientation: Which way is up, as EXIF has it: 1 for upright, 2 to 8 for turned or mirrored.
    """

    format: str
    mode: str
    width: int
    height: int
    deep: bool
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright image, in pixels."""
        size = self.width, self.height
        return size[::-1] if 5 <= self.orientation <= 8 else size


def read_header(file: str) -> Header:
    """Read what an image file says of itself: a part of it where that suffices.

    Args:
        file: A path, which may lead into a tar or Parquet file, or a URL.

    Raises:
        UndecodableImage: It is no image that diva reads, or cannot be read; the message is the reason.
    """
    for data in _more_and_more(file):
        try:
            with open_image(data) as image:
                return _header(image)
        except UndecodableImage as error:
            failure = error
    raise failure


def _header(image: Image.Image) -> Header:
    deep = is_deep(image.mode) or other_bytes(image)
    return Header(image.format or "", image.mode, *image.size, deep, orientation_of(image))


def _more_and_more(file: str) -> Iterator[bytes]:
    """The beginning of a file, then all of it."""
    start = _read(lambda: _start_of(file))
    yield start
    if len(start) == START_BYTES:
        yield read_image(file)


def _start_of(file: str) -> bytes:
    inside = None if is_url(file) else contained(file)
    return read_range(place_of(file), 0, START_BYTES) if inside is None else inside.read(START_BYTES)


def read_image(file: str) -> bytes:
    """Read all of an image file.

    Args:
        file: A path, which may lead into a tar or Parquet file, or a URL.

    Raises:
        UndecodableImage: It cannot be read; the message is the reason.
    """
    return _read(lambda: read_bytes(file))


def _read(bytes_of: Callable[[], bytes]) -> bytes:
    try:
        return bytes_of()
    except OSError as error:
        raise UndecodableImage(f"cannot be read: {reason(error)}") from error
    except DataError as error:
        raise UndecodableImage(error.got) from error
