"""Chunks of PNG files that no pixel needs are not unpacked."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from divacli.images.decode import decode_image
from divacli.images.png import without_needless
from tests.images.made import encoded

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)
PLAIN = encoded(Image.fromarray(PIXELS))
BOMB = zlib.compress(bytes(100_000_000), 1)


def chunk(kind: bytes, content: bytes, *, right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (0 if right else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def inserted(made: bytes, data: bytes = PLAIN) -> bytes:
    place = data.index(b"IDAT") - 4
    return data[:place] + made + data[place:]


@pytest.mark.parametrize(
    "made",
    [
        chunk(b"iCCP", b"x\0\0" + BOMB),
        chunk(b"iCCP", b"x\0\0no zlib"),
        chunk(b"iCCP", b"x"),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(b"profile"), right=False),
        chunk(b"zTXt", b"Comment\0\0" + BOMB),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
        chunk(b"iTXt", b"Comment\0\0\0\0\0" + bytes(90_000_000)),
        chunk(b"tEXt", b"Comment\0" + bytes(90_000_000)),
        chunk(b"tEXt", b""),
    ],
)
def test_nothing_in_a_chunk_without_pixels_is_damage(made: bytes) -> None:
    for data in (inserted(made), PLAIN[:-12] + made + PLAIN[-12:]):
        assert without_needless(data) == PLAIN
        assert np.array_equal(np.asarray(decode_image(data)), PIXELS)


def test_a_plain_file_is_not_copied() -> None:
    assert without_needless(PLAIN) is PLAIN
    assert without_needless(PLAIN[:50]) == PLAIN[:50]
    other = b"\xff\xd8 iCCP"
    assert without_needless(other) is other


def test_which_way_is_up_stays_readable_in_texts() -> None:
    xmp = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/' xmlns:tiff='http://ns.adobe.com/tiff/1.0/' "
        b'tiff:Orientation="3"></x:xmpmeta>'
    )
    keyword = b"XML:com.adobe.xmp"
    exif = Image.Exif()
    exif[0x0112] = 3
    raw = b"\nexif\n%8d\n%b\n" % (len(exif.tobytes()), exif.tobytes().hex().encode())
    texts = [
        chunk(b"iTXt", keyword + b"\0\0\0\0\0" + xmp),
        chunk(b"iTXt", keyword + b"\0\1\0en\0key\0" + zlib.compress(xmp)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
        chunk(b"tEXt", b"Raw profile type exif\0" + raw),
    ]
    for made in texts:
        assert without_needless(inserted(made)) == inserted(made)
        assert np.array_equal(np.asarray(decode_image(inserted(made))), PIXELS[::-1, ::-1])


def test_the_settings_of_pillow_are_left_alone() -> None:
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
