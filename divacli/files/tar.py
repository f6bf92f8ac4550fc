"""Members of uncompressed tar files, each read by itself."""

from __future__ import annotations

import errno
import functools
import posixpath
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from divacli.errors import DataError, listed
from divacli.files.regular import open_regular

_AGAIN = "download or write it again"

MAX_BYTES = 4 << 30
"""Of one image file, inside a tar file or by itself: what is larger is not read into memory."""


@dataclass(frozen=True)
class Member:
    """Where the content of a member lies in its tar file.

    Attributes:
        offset: Of its first byte.
        size: In bytes.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class _Contents:
    """What is in a tar file but for its folders.

    Attributes:
        files: Members with content, by name.
        others: Name and kind of every other member.
    """

    files: Mapping[str, Member]
    others: Sequence[tuple[str, str]]


def members(tar: str) -> Mapping[str, Member]:
    """The plain files in a tar file, by name, in their order; looked up once in a process, unless it changes.

    A hard link to a member before it is a second name of that member's content.

    Raises:
        OSError: It cannot be read.
        DataError: It is no tar file, compressed, damaged or cut off, or has two members of one name.
    """
    return _contents(tar).files


def others(tar: str) -> Sequence[tuple[str, str]]:
    """Name and kind of the members of a tar file that are neither folders nor plain files: links, devices.

    Raises:
        OSError: As of `members`.
        DataError: As of `members`.
    """
    return _contents(tar).others


def read_member(tar: str, name: str) -> bytes:
    """The content of a member.

    The tar file is opened anew each time: nothing is shared between processes or threads.

    Raises:
        OSError: The tar file cannot be read.
        DataError: As of `members`, or it has no such member.
    """
    member = members(tar).get(name)
    if member is None:
        raise DataError(f"{tar} has no member {name}", expected="the tar file that the table was made from")
    if member.size > MAX_BYTES:
        raise DataError(f"{tar}/{name} has {member.size:,} bytes", expected=f"{MAX_BYTES:,} at the most")
    with open_regular(tar) as file:
        file.seek(member.offset)
        content = file.read(member.size)
    if len(content) < member.size:
        raise DataError(f"{tar} changed or was truncated while reading: {name} is not whole", hint=_AGAIN)
    return content


def _contents(tar: str) -> _Contents:
    found = Path(tar).stat()
    return _looked_up(tar, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


# Without a limit, for a data set has as many tar files as it has.
@functools.cache
def _looked_up(tar: str, state: tuple[int, ...]) -> _Contents:
    found: dict[str, Member] = {}
    rest: list[tuple[str, str]] = []
    again = []
    try:
        with open_regular(tar) as stream, tarfile.open(tar, "r:", stream) as archive:
            for entry in archive:
                # A header may state anything: less than nothing leads back to where the reader was.
                if entry.size < 0:
                    raise _unreadable(tar, f"{entry.name} states a size of {entry.size:,} bytes")
                name = member_name(entry.name)
                member = _member(entry, found)
                if member is not None:
                    if name in found:
                        again.append(name)
                    found[name] = member
                elif not entry.isdir():
                    rest.append((name, _kind(entry)))
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        # The module reads headers as long as they state themselves to be.
        raise _unreadable(tar, str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _unreadable(tar, "a header states a size that no file has") from error
    # The module takes whatever is no header for the end, also where a copy was cut off between two members.
    with open_regular(tar) as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise _unreadable(tar, f"no end of the archive after {len(found):,} members, at byte {end:,}")
    if again:
        raise DataError(
            f"{tar}: several members have the same name: {listed(again)}",
            expected="one member for each name",
            hint="write the shard again with different keys",
        )
    return _Contents(found, rest)


def _member(entry: tarfile.TarInfo, before: Mapping[str, Member]) -> Member | None:
    """Where the content of an entry lies, which may be that of one before it; None where it has none."""
    if entry.islnk():
        return before.get(member_name(entry.linkname))
    return Member(entry.offset_data, entry.size) if entry.isreg() and not entry.issparse() else None


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.islnk():
        return "hard link to no member before it"
    if entry.issym():
        return "symbolic link"
    return "sparse file" if entry.issparse() else "no plain file"


def _unreadable(tar: str, reason: str) -> DataError:
    with open_regular(tar) as file:
        start = file.read(6)
    packed = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
    for magic, command in packed.items():
        if start.startswith(magic):
            return compressed(tar, command)
    return DataError(f"{tar} is damaged or was cut off: {reason}", expected="a whole tar file", hint=_AGAIN)


def compressed(tar: str, command: str = "gunzip") -> DataError:
    """The error for a tar file that is compressed.

    Args:
        tar: Its name.
        command: What unpacks it.
    """
    return DataError(
        f"{tar} is compressed: its members cannot be read one by one",
        expected="an uncompressed .tar file (images are compressed already)",
        hint=f"unpack the archive but not its members, for example with: {command} {tar}",
    )


def member_name(path: str) -> str:
    """The name of what lies in a file, as a path without `.` and `..` in it, which leads nowhere else."""
    return posixpath.normpath(f"/{path.lstrip('/')}")[1:]
