"""PNG files without the chunks that no pixel needs: those may unpack to any size."""

from __future__ import annotations

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_KEPT = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # which way is up may stand in these
_MOST = 1 << 20  # bytes of such a text, unpacked; Pillow calls a PNG with a larger one damaged


def without_needless(data: bytes) -> bytes:
    """Leave the colour profile and most texts of a PNG file out, which are not used.

    Pillow unpacks all of them, however large, and takes a file for damaged where one is larger than it
    expects, or where its checksum is wrong. What is left out is not even looked at.

    Args:
        data: The content of a file, of any format.

    Returns:
        The same bytes where nothing is left out, also of any other format.
    """
    if not data.startswith(_SIGNATURE):
        return data
    parts: list[memoryview] = []
    view = memoryview(data)
    kept, place = 0, len(_SIGNATURE)
    while place + 12 <= len(data):
        stop = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if stop > len(data) or kind == b"IEND":
            break  # cut off, or at its end: the rest stays as it is
        if kind == b"iCCP" or (kind in _TEXTS and not _is_needed(kind, view[place + 8 : stop - 4])):
            parts.append(view[kept:place])
            kept = stop
        place = stop
    return b"".join((*parts, view[kept:])) if parts else data


def _is_needed(kind: bytes, content: memoryview) -> bool:
    """Whether a text may say which way is up, and is of a size for that."""
    keyword, between, packed = bytes(content[:256]).partition(b"\0")
    if keyword not in _KEPT or not between or len(content) > _MOST:
        return False
    if kind == b"tEXt" or (kind == b"iTXt" and packed[:1] == b"\0"):
        return True
    start = len(keyword) + 2
    if kind == b"iTXt":  # then come a byte more, the language and the translated keyword
        rest = bytes(content[start + 1 :])
        start += 1 + len(rest) - len(rest.split(b"\0", 2)[-1])
    try:
        unpack = zlib.decompressobj()
        unpack.decompress(bytes(content[start:]), _MOST)
    except zlib.error:
        return False
    return not unpack.unconsumed_tail
