"""Bring image files into a folder: as links, as other names, or as copies that are on disk afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal

from divacli.errors import DataError, OutputError
from divacli.files.containers import contained, reading_order
from divacli.files.path_or_url import read_bytes
from divacli.files.regular import open_regular
from divacli.files.staging import sync_folder
from divacli.files.tar import MAX_BYTES
from divacli.files.urls import is_url

Way = Literal["symlink", "hardlink", "copy"]
"""How a file comes into the folder: a link that names the original, another name of it, or its bytes."""

_THREADS = 8  # that copy and wait for the disk
_PART = 1 << 20  # bytes read at once

State = tuple[int, ...]
"""Device, inode, length and times of last change of a file: what differs in none of them is the same file."""


def state_of(file: str) -> State | None:
    """Return the state of a file; None for a URL and for what lies in a tar or Parquet file.

    Raises:
        DataError: There is no such file.
    """
    if is_url(file) or contained(file) is not None:
        return None
    try:
        return _state(os.stat(file))  # noqa: PTH116  # a third faster than Path
    except OSError as error:
        raise _unreadable(file, error) from error


def bring_in(
    files: Sequence[str],
    states: Sequence[State | None],
    places: Sequence[Path],
    way: Way,
    advance: Callable[[int], None],
) -> None:
    """Bring files to their places. On return all of them, and the names in their folders, are on disk.

    Args:
        files: (n,) absolute paths, which may lead into tar or Parquet files, or URLs.
        states: (n,) of these files when they were looked at, as of `state_of`.
        places: (n,) where they come; their folders are there.
        way: How they come.
        advance: Told of each that is done.

    Raises:
        DataError: A file cannot be read, or has changed since it was looked at.
        OutputError: A file cannot be given another name there.
        OSError: A place cannot be written to.
    """

    def bring(position: int) -> None:
        file, state, place = files[position], states[position], places[position]
        if way == "copy" and state is None:
            place.write_bytes(_whole(file))
        elif way == "copy":
            _copy(file, state, place)
        elif way == "symlink":
            place.symlink_to(file)
        else:
            _link(file, state, place)
        advance(1)

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for _ in pool.map(bring, reading_order(files)):
                pass
            # When all are written: most of them are on disk by then, and the others are written together.
            if way == "copy":
                for _ in pool.map(_sync, places):
                    pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for folder in dict.fromkeys(place.parent for place in places):
        sync_folder(folder)


def _copy(file: str, state: State | None, place: Path) -> None:
    """Copy a file, opened once, that is still as it was when it was looked at."""
    with _opened(file) as source, place.open("xb") as target:
        before = os.fstat(source.fileno())
        length = 0
        # No further than the file is long: one that grows all the time would never end.
        while length <= before.st_size and (part := _part(source, file)):
            length += len(part)
            target.write(part)
        after = os.fstat(source.fileno())
        if not state == _state(before) == _state(after) or length != before.st_size:
            raise _changed(file)


def _link(file: str, state: State | None, place: Path) -> None:
    """Give a file another name. As long as it is open here, no other file has its inode."""
    with _opened(file) as source:
        before = os.fstat(source.fileno())
        try:
            # Of a symbolic link: another name for the file behind it, not for the link.
            os.link(os.path.realpath(file), place)
        except OSError as error:
            elsewhere = error.errno == errno.EXDEV
            raise OutputError(
                f"{file} cannot be given another name in {place.parent.parent.parent}: {error.strerror}",
                expected="images in the same file system" if elsewhere else "a file system with hard links",
                hint="use --materialize copy or symlink, or a place beside the images with --out",
            ) from error
        if state != _state(before) or not os.path.samestat(before, place.lstat()):
            raise _changed(file)


def _opened(file: str) -> BinaryIO:
    try:
        return open_regular(file, MAX_BYTES)
    except OSError as error:
        raise _unreadable(file, error) from error


def _changed(file: str) -> DataError:
    return DataError(
        f"{file} changed, or was replaced, while images were brought in",
        expected="images that nobody writes to meanwhile",
        hint="run the command again",
    )


def _part(source: BinaryIO, file: str) -> bytes:
    try:
        return source.read(_PART)
    except OSError as error:
        raise _unreadable(file, error) from error


def _whole(file: str) -> bytes:
    """All of what lies at a URL, or in a tar or Parquet file."""
    try:
        return read_bytes(file)
    except OSError as error:
        raise _unreadable(file, error) from error


def _state(found: os.stat_result) -> State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unreadable(file: str, error: OSError) -> DataError:
    return DataError(
        f"{file} cannot be read: {error.strerror}",
        expected="images that can be read",
        hint="make it readable, or decide to drop it",
    )


def _sync(place: Path) -> None:
    """Have the content of a file on disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
