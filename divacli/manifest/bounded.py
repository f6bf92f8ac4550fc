"""Read tables as long as they look like ones: no line without end, no gigabytes from a file of kilobytes."""

from __future__ import annotations

from typing import IO

from divacli.errors import DataError
from divacli.files.formats import LINE_FORMATS
from divacli.files.path_or_url import Place, opened

LONGEST_LINE = 4 << 20
"""Bytes. Rows of a table have some hundred, with the embedding in the text some ten thousand."""

TABLE_BYTES = 16 << 30
"""The most that a table in a file may have: more than a hundred million rows of a path and a label."""

_PART = 1 << 20

# What unpacks to more bytes than so many is no array or table where it is so much denser in the file.
# Honest ones may be as dense: counts of words, sorted labels. Deflate ends at about a thousand.
_LARGE = 1 << 32
_DENSEST = 100

# Every sample has a path of its own, so that each row takes some room. The easiest names to pack are
# 00000000.jpg, 00000001.jpg and so on. Measured of millions of them in Parquet, in bytes a row: 5 by default,
# 0.4 to 0.7 with zstd, and 0.01 to 0.08 where each is stored as what differs from the one before, which no
# writer does unless it is told to. One path over and over takes 0.006 to 0.012, and as much time and memory
# as any other once it is read. So do whole numbers that are each one more than the last: who has a million
# images that are called so and stored so is told to give them as text.
_MANY_ROWS = 1 << 20
_ROWS_A_BYTE = 64

_WITHOUT_LINES = (b"PAR1", b"[")  # Parquet, and a JSON array


def read_table(place: Place, format: str, name: str) -> bytes:
    """All bytes of a file with a table.

    Args:
        place: The file.
        format: One of `TABLE_FORMATS`, of `LIST_FORMATS`, or another one without lines.
        name: How messages call it.

    Raises:
        OSError: It cannot be read, is no regular file, or is too large.
        DataError: A line is too long.
    """
    with opened(place, TABLE_BYTES) as stream:
        return _read(stream, name, has_lines=format in LINE_FORMATS)


def read_stream(stream: IO[bytes], name: str) -> bytes:
    """As `read_table`, of what has no name that tells its format."""
    start = stream.read(_PART)
    return _read(stream, name, has_lines=not start.lstrip().startswith(_WITHOUT_LINES), start=start)


def most_unpacked(held: int) -> int:
    """The most bytes that something of `held` bytes in a file may take in memory."""
    return max(_LARGE, _DENSEST * held)


def too_dense(what: str, unpacked: int, held: int, hint: str) -> DataError:
    """The error for what would take more than `most_unpacked`.

    Args:
        what: The file, and what in it.
        unpacked: Bytes that it takes in memory, or those so far.
        held: Bytes that it takes in the file.
        hint: How to write it otherwise.
    """
    return DataError(
        f"{what} unpacks to {unpacked:,} bytes from {held:,}",
        expected=f"at most {_DENSEST} times as many above {_LARGE:,} bytes",
        hint=hint,
    )


def require_room(rows: int, held: int, name: str, hint: str) -> None:
    """Refuse a file that states many more samples than it has room for, before they are made.

    Args:
        rows: That it states.
        held: Bytes of the file.
        name: How messages call it.
        hint: How to write it otherwise.

    Raises:
        DataError: It does.
    """
    if rows > max(_MANY_ROWS, _ROWS_A_BYTE * held):
        raise DataError(
            f"{name} states {rows:,} rows and has {held:,} bytes",
            expected=f"a byte for each {_ROWS_A_BYTE} rows at the least: every sample has a path of its own",
            hint=hint,
        )


def _read(stream: IO[bytes], name: str, *, has_lines: bool, start: bytes = b"") -> bytes:
    parts: list[bytes] = []
    length = line = 0
    part = start or stream.read(_PART)
    while part:
        parts.append(part)
        length += len(part)
        if length > TABLE_BYTES:  # it grows while it is read
            raise DataError(f"{name} has more than {TABLE_BYTES:,} bytes", expected="a table of samples")
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
