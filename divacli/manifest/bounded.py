"""Read the bytes of a table as long as it looks like one: a line that never ends is refused on the way."""

from __future__ import annotations

from typing import IO

from divacli.errors import DataError
from divacli.files import Place, opened

LONGEST_LINE = 4 << 20
"""Bytes. Rows of a table have some hundred, with the embedding in the text some ten thousand."""

TABLE_BYTES = 16 << 30
"""The most that a table in a file may have: more than a hundred million rows of a path and a label."""

_PART = 1 << 20
_WITHOUT_LINES = (b"PAR1", b"[")  # Parquet, and a JSON array


def read_table(place: Place, format: str, name: str) -> bytes:
    """All bytes of a file with a table.

    Args:
        place: The file.
        format: "csv", "tsv", "jsonl", or one without lines.
        name: How messages call it.

    Raises:
        OSError: It cannot be read, is no regular file, or is too large.
        DataError: A line is too long.
    """
    with opened(place, TABLE_BYTES) as stream:
        return _read(stream, name, has_lines=format in ("csv", "tsv", "jsonl"))


def read_stream(stream: IO[bytes], name: str) -> bytes:
    """As `read_table`, of what has no name that tells its format."""
    start = stream.read(_PART)
    return _read(stream, name, has_lines=not start.lstrip().startswith(_WITHOUT_LINES), start=start)


def _read(stream: IO[bytes], name: str, *, has_lines: bool, start: bytes = b"") -> bytes:
    parts: list[bytes] = []
    line = 0
    part = start or stream.read(_PART)
    while part:
        parts.append(part)
        # A line within one part is short. How a file is cut into parts makes no difference.
        first = min((end for end in (part.find(b"\n"), part.find(b"\r")) if end >= 0), default=len(part))
        last = max(part.rfind(b"\n"), part.rfind(b"\r"))
        longest = line + first
        line = longest if last < 0 else len(part) - last - 1
        if has_lines and longest > LONGEST_LINE:
            raise DataError(
                f"{name}: a line has more than {LONGEST_LINE:,} bytes",
                expected="a table with one line for each sample",
                hint="check that this is the right file, and that its lines end as text does",
            )
        part = stream.read(_PART)
    return b"".join(parts)
