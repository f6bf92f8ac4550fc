"""Open what a stranger may have named: regular files only, without waiting, and no more bytes than agreed.

A pipe may never answer, and a device may never end. So may files that the system makes up, such as those in
/proc: they state no length and have content. Every reader of this package opens local files here.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from typing import IO

NO_REGULAR_FILE = "no regular file but a pipe, a socket or a device"

_NO_LENGTH = "a file that states no length and has content, as the system makes them up"
LARGEST = 1 << 46
"""Bytes. What states more is no file, but a window on all memory."""

_PART = 1 << 20  # bytes

DOCUMENT_BYTES = 64 << 20
"""The most that a JSON file may hold that diva writes: a record of runs, the description of a store."""


def open_regular(path: str | os.PathLike[str], most: int = LARGEST) -> BufferedReader:
    """Open a regular file for reading, and nothing else.

    The file is looked at before it is opened, because opening some devices does something, and again
    afterwards, because another file may have taken its place.

    Args:
        path: The file, or a link to it.
        most: The bytes it may have.

    Returns:
        A buffered stream, at the first byte.

    Raises:
        OSError: There is no such file, it is no regular file, it is too large, or it has more than it states.
    """
    _require_regular(os.stat(path), path, most)  # noqa: PTH116  # any kind of path
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags)
    try:
        found = os.fstat(descriptor)
        _require_regular(found, path, most)
        if not found.st_size and _has_content(descriptor):
            raise OSError(errno.EINVAL, _NO_LENGTH, os.fspath(path))
    except BaseException:
        os.close(descriptor)
        raise
    # Not above: a signal may come when the stream has closed the descriptor already, and others may have it.
    return open(path, "rb", opener=lambda *_: descriptor)  # and its name is the file's


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Read all bytes of a regular file.

    Args:
        path: The file, or a link to it.
        most: The bytes it may have.

    Raises:
        OSError: As of `open_regular`; also where more bytes come than the file system announced.
    """
    with open_regular(path, most) as stream:
        return read_at_most(stream, most, path)


def read_at_most(stream: IO[bytes], most: int, path: str | os.PathLike[str]) -> bytes:
    """Read a stream to its end.

    Args:
        stream: Where it is read from.
        most: The bytes it may have.
        path: What the error calls it.

    Raises:
        OSError: It has more.
    """
    parts, left = [], most + 1
    # Memory for all that is asked for is taken before anything is read.
    while left and (part := stream.read(min(left, _PART))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise _too_large(most + 1, most, path)
    return b"".join(parts)


def reason(error: Exception) -> str:
    """Say what an error is about, without the number and the name of the file that `str` adds to some."""
    return getattr(error, "strerror", None) or str(error)


def _has_content(descriptor: int) -> bool:
    """Whether something can be read, or would be waited for, in a file that states no length."""
    try:
        return bool(os.pread(descriptor, 1, 0))
    except OSError:
        return True


def _require_regular(status: os.stat_result, path: str | os.PathLike[str], most: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, NO_REGULAR_FILE, os.fspath(path))
    if status.st_size > most:
        raise _too_large(status.st_size, most, path)


def _too_large(size: int, most: int, path: str | os.PathLike[str]) -> OSError:
    return OSError(errno.EFBIG, f"{size:,} bytes, the limit is {most:,}", os.fspath(path))
