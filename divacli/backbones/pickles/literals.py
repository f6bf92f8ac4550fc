"""Read the numbers and texts in a pickle from their bytes; ValueError where they are malformed."""

from __future__ import annotations

import codecs

_WHOLE_BITS = 8192  # of a whole number: Python prints none of twice as many


def whole(content: bytes) -> int:
    """Whole number of bytes in two's complement, the lowest first."""
    if 8 * len(content) > _WHOLE_BITS:
        raise ValueError("it has a number of too many digits")
    return int.from_bytes(content, "little", signed=True)


def whole_in_line(content: bytes) -> int:
    """Whole number as Python writes it."""
    if 3 * len(content) > _WHOLE_BITS:
        raise ValueError("it has a number of too many digits")
    return int(content.removesuffix(b"L"), 0)


def whole_or_bool(content: bytes) -> int | bool:
    """Whole number, or 00 and 01 for False and True."""
    return {b"00": False, b"01": True}[content] if content in (b"00", b"01") else whole_in_line(content)


def quoted(content: bytes) -> str:
    """Text in quotes with escapes, as Python 2 writes it; each byte is one character."""
    if len(content) < 2 or content[:1] not in b"'\"" or content[:1] != content[-1:]:
        raise ValueError("it has a text without quotes")
    return codecs.escape_decode(content[1:-1])[0].decode("latin-1")


def utf8(content: bytes) -> str:
    """Text in UTF-8, with lone surrogates."""
    return content.decode("utf-8", "surrogatepass")


def latin1(content: bytes) -> str:
    """Text of which each byte is one character."""
    return content.decode("latin-1")


def raw_unicode(content: bytes) -> str:
    """Text of one line, with escapes of characters beyond Latin-1."""
    return content.decode("raw-unicode-escape")
