"""Files by their local path or by a URL: what is there, its bytes, and ranges of them.

Local files are read by the operating system alone; their paths may go through an uncompressed tar file, or
one of Parquet with images, as through a folder. A URL (`s3://`, `gs://`, `https://`, `memory://` ...) goes
through fsspec, which is imported for the first of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import stat
import time
from pathlib import Path
from typing import IO

from divacli.errors import DataError
from divacli.files.containers import contained
from divacli.files.regular import DOCUMENT_BYTES, LARGEST, open_regular, read_regular
from divacli.files.remote import RemoteFile
from divacli.files.tar import MAX_BYTES
from divacli.files.urls import is_url, local_path

STORE_FILE = "store.json"
"""What a folder is a feature store by."""

RUN_FILE = "run.json"
"""What a folder of results is known by: which commands wrote what into it."""

STAGE = ".diva-staged"
"""Where the files of a command wait until all of them are there (`divacli.files.staging`)."""

COMMIT = "commit.json"
"""The note in it that says that they are there, and are being put into place."""

_MOMENTS = 20  # looks at a note, a twentieth of a second apart: a command that runs takes it away

Place = Path | RemoteFile
"""Where a file is."""


def place_of(name: str) -> Place:
    """Where a file that is called so lies; `file:///home/a` is the path `/home/a`."""
    return RemoteFile(name) if is_url(name) else Path(local_path(name))


def joined(folder: Place | str, name: str) -> str:
    """The path or URL of a file, as a table in a folder calls it: relative, absolute, or by a URL."""
    if "://" in name:
        if is_url(name):
            return name
        name = local_path(name)
    base = str(folder)
    if posixpath.isabs(name) or not is_url(base):
        return posixpath.join(base, name)
    # Each step up takes one part of the path, and the name of the bucket or server stays.
    start, host, path = re.fullmatch(r"(.*?://)([^/]*)(.*)", base).groups()  # type: ignore[union-attr]
    return f"{start}{host}{posixpath.normpath(posixpath.join('/', path, name))}"


def read_bytes(file: str) -> bytes:
    """All bytes of a sample's file.

    Args:
        file: As `Manifest.files` names it: a path, which may go through a tar or Parquet file as through a
            folder, or a URL.

    Raises:
        OSError: A local file cannot be read, is no regular file, or larger than any image.
        DataError: Another one cannot.
    """
    inner = contained(file)
    if inner is not None:
        return inner.read()
    return read_whole(place_of(file), MAX_BYTES)


def read_whole(place: Place, most: int) -> bytes:
    """All bytes of a file.

    Args:
        place: The file.
        most: The bytes that it may have.

    Raises:
        OSError: A local file cannot be read, is no regular file, or has more.
        DataError: Another one cannot be read, or has more.
    """
    return place.read_bytes(most) if isinstance(place, RemoteFile) else read_regular(place, most)


def opened(place: Place, most: int = LARGEST) -> IO[bytes]:
    """A file, open for reading.

    Args:
        place: The file.
        most: The bytes that a local one may have.

    Raises:
        OSError: A local file cannot be read, is no regular file, or has more.
        DataError: Another one cannot be read.
    """
    return place.open() if isinstance(place, RemoteFile) else open_regular(place, most)


def is_file(file: str) -> bool:
    """Whether a path leads to a regular file, or to what lies in a tar file or in one of Parquet.

    Raises:
        DataError: The tar or Parquet file is not usable.
    """
    inner = contained(file)
    if inner is not None:
        return inner.exists()
    return os.path.isfile(file)  # noqa: PTH113  # Path.is_file raises on some names


def is_special(file: str) -> bool:
    """Whether a path leads to what is neither a file nor a folder: a pipe, a socket or a device."""
    try:
        mode = status_of(file).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def status_of(file: str) -> os.stat_result:
    """What the file system says of a file; of what lies in a tar or Parquet file, of that file.

    Raises:
        OSError: There is no such file.
        ValueError: There can be none of that name.
    """
    inner = contained(file)
    return os.stat(file if inner is None else inner.container)  # noqa: PTH116  # a third faster than Path


def read_range(place: Place, start: int, stop: int) -> bytes:
    """Some bytes of a file, less where it ends before.

    Raises:
        OSError: A local file cannot be read.
        DataError: Another one cannot.
    """
    if isinstance(place, RemoteFile):
        return place.read_ranges([(start, stop)])[0]
    with open_regular(place) as file:
        file.seek(start)
        return file.read(stop - start)


def size_of(place: Place) -> int:
    """Length of a file in bytes.

    Raises:
        OSError: There is no such local file.
        DataError: There is no such file at a URL.
    """
    return place.size() if isinstance(place, RemoteFile) else place.stat().st_size


def file_digest(place: Place, most: int = LARGEST) -> bytes:
    """SHA-256 of a file's content.

    Args:
        place: The file.
        most: The bytes that a local one may have.

    Raises:
        OSError: A local file cannot be read, is no regular file, or too large.
        DataError: Another one cannot.
    """
    if isinstance(place, RemoteFile):
        return place.digest()
    inner = contained(str(place))
    if inner is not None:
        return hashlib.sha256(inner.read()).digest()
    with open_regular(place, most) as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def require_finished(folder: Path, name: str | None = None) -> None:
    """Refuse a folder whose files may be of two runs: a command was killed while it put them into place.

    Args:
        folder: Any.
        name: The only file of it that is wanted. It is refused if a newer one waits to replace it.

    Raises:
        DataError: The folder holds the note of such a command, and files that wait.
    """
    for _ in range(_MOMENTS):
        try:
            waiting = set(os.listdir(folder / STAGE))  # noqa: PTH208  # names, not paths
        except OSError:
            return
        if COMMIT not in waiting or (len(waiting) == 1 if name is None else name not in waiting):
            return
        time.sleep(0.05)
    raise DataError(
        f"{folder} may hold files of two runs: diva was killed there while it put files into place, says "
        f"{folder / STAGE / COMMIT}",
        expected="files of runs that have ended",
        hint=f"remove {folder / STAGE}, then run the command that was killed again, with --overwrite",
    )


def holds_results(folder: Path) -> bool:
    """Whether a folder has a record of diva's runs; other programs have files of that name, too."""
    try:
        runs = json.loads(read_regular(folder / RUN_FILE, DOCUMENT_BYTES))["runs"]
        return bool(runs) and all(
            isinstance(run["outputs"], dict) and run["versions"]["diva"] for run in runs
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
