"""Files at a URL, by fsspec: ranges of their bytes, and copies of them in the cache."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from divacli.errors import DataError, DivaError
from divacli.files.regular import read_at_most
from divacli.files.tar import MAX_BYTES
from divacli.files.urls import LOCAL, URL, path_of_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# What URLs are read by. Whoever writes a table chooses them, and others that fsspec knows do more than
# read the bytes of a file: references are templates, which may tell what the environment holds.
_PROTOCOLS = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "http", "https", "ftp", "sftp"),
    *("ssh", "hdfs", "webhdfs", "memory", *LOCAL),
)
_CACHES = ("filecache", "simplecache", "blockcache")

# What to install for a protocol that fsspec leaves to another package.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "huggingface_hub",
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
}
_DOWNLOAD = "download the file and give its path"
_BLOCK = 1 << 20  # of what is read in sequence, bytes
_PIECE = 16 << 20  # the longest range asked for at once: pieces of a longer one come side by side


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file, or the beginning of the names of several, at a URL; with as much of `Path` as reading needs.

    It holds the URL alone: it pickles, and serves threads and forked processes.

    Attributes:
        url: With its protocol.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemoteFile:
        """What lies below."""
        return RemoteFile(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(path_of_url(self.url))

    @property
    def parent(self) -> RemoteFile:
        """Where it lies."""
        return RemoteFile(self.url.rstrip("/").rpartition("/")[0])

    def resolve(self) -> RemoteFile:
        """Itself: a URL is absolute."""
        return self

    def exists(self) -> bool:
        """Whether there is a file.

        Raises:
            DataError: That cannot be told.
        """
        system, path = self._system()
        with _answered(self.url):
            try:
                return bool(system.info(path)["type"] == "file")
            except FileNotFoundError as error:
                if _unknown(error) is not None:
                    raise
                return False

    def open(self) -> IO[bytes]:
        """Open it for reading in sequence, in blocks of a megabyte."""
        system, path = self._system()
        with _answered(self.url):
            return system.open(path, "rb", block_size=_BLOCK)

    def read_bytes(self, most: int = MAX_BYTES) -> bytes:
        """All of it.

        Args:
            most: The bytes that it may have.

        Raises:
            DataError: It cannot be read, or has more.
        """
        system, path = self._system()
        with _answered(self.url), system.open(path, "rb", block_size=_BLOCK) as stream:
            return read_at_most(stream, most, self.url)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes from start to stop of each range, asked for side by side.

        Raises:
            DataError: It cannot be read, or whoever serves it sends whole files only. A range beyond its end
                is short.
        """
        pieces = [
            (number, position, min(position + _PIECE, stop))
            for number, (start, stop) in enumerate(ranges)
            for position in range(start, stop, _PIECE)
        ]
        system, path = self._system()
        with _answered(self.url):
            found = system.cat_ranges(
                [path] * len(pieces), [start for _, start, _ in pieces], [stop for _, _, stop in pieces]
            )
            # By default, and in some versions always, failures come among the answers.
            for part in found:
                if isinstance(part, BaseException):
                    raise part
        parts: list[list[bytes]] = [[] for _ in ranges]
        for (number, start, stop), part in zip(pieces, found, strict=True):
            if len(part) > stop - start:
                raise DataError(
                    f"{self.url}: its server sends whole files, not parts of them",
                    expected="a server that honours the header Range",
                    hint=_DOWNLOAD,
                )
            parts[number].append(part)
        return [b"".join(one) for one in parts]

    def glob(self, pattern: str) -> list[RemoteFile]:
        """The files below that match."""
        system, path = self._system()
        prefix = self.url.rstrip("/")
        with _answered(self.url):
            names = [posixpath.basename(found) for found in system.ls(path, detail=False)]
        return [RemoteFile(f"{prefix}/{name}") for name in fnmatch.filter(names, pattern)]

    def size(self) -> int:
        """Its length in bytes."""
        system, path = self._system()
        with _answered(self.url):
            size = system.info(path)["size"]
        if size is None:
            raise DataError(
                f"{self.url}: its server does not say how long it is",
                expected="a server that sends parts of files",
                hint=_DOWNLOAD,
            )
        return int(size)

    def digest(self) -> bytes:
        """SHA-256 of its content, which is read once in a process, unless the server says that it changed."""
        system, path = self._system()
        with _answered(self.url):
            return _digest(self, repr(sorted(system.info(path).items())))

    def _system(self) -> tuple[AbstractFileSystem, str]:
        """The file system (fsspec keeps one for all files of a server) and the path in it."""
        _require_known(self.url)
        with _answered(self.url):
            from fsspec.core import url_to_fs

            system, path = url_to_fs(self.url)
        return system, path


@functools.lru_cache(maxsize=64)
def _digest(file: RemoteFile, state: str) -> bytes:
    """SHA-256 of a file in the state that its server describes."""
    total = hashlib.sha256()
    size, position = file.size(), 0
    while position < size:
        part = file.read_ranges([(position, min(size, position + 4 * _PIECE))])[0]
        if not part:
            raise DataError(f"{file} changed or was truncated while reading: it ends at byte {position:,}")
        total.update(part)
        position += len(part)
    return total.digest()


def _require_known(url: str) -> None:
    """Refuse what diva reads nothing by, before fsspec sees it.

    Each part of a chain counts, for fsspec opens all of them.

    Raises:
        DataError: Which protocol it is.
    """
    *before, last = url.split("::")
    protocol = last.partition("://")[0] if "://" in last else ""
    others = [part for part in before if part not in _CACHES]
    if protocol not in _PROTOCOLS or others:
        wrong = others[0].partition("://")[0] if others else protocol
        raise DataError(
            f"{url}: {wrong or 'no protocol'} is nothing that URLs are read by",
            expected=f"one of {', '.join(_PROTOCOLS)}; before it, {', '.join(_CACHES)} and :: if you like",
            hint=_DOWNLOAD,
        )


def _unknown(error: FileNotFoundError) -> BaseException | None:
    """What hides behind the one error that fsspec has for all trouble of the web; None: no such file."""
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
        return cause
    of_web = type(cause).__module__.partition(".")[0] == "aiohttp"
    return cause if of_web and getattr(cause, "status", None) not in (404, 410) else None


@contextlib.contextmanager
def _answered(url: str) -> Iterator[None]:
    """Say of whatever goes wrong what the user can do."""
    try:
        yield
    except DivaError:
        raise
    except ImportError as error:
        protocol = URL.match(url)[1].lower()  # type: ignore[index]
        package = _PACKAGES.get(protocol)
        raise DataError(
            f"{url}: a package that reads {protocol}:// is not installed",
            expected="fsspec and what it needs for this protocol",
            hint=f"pip install {package}" if package else str(error),
        ) from error
    except Exception as error:
        unknown = _unknown(error) if isinstance(error, FileNotFoundError) else error
        if unknown is None:
            raise DataError(f"{url} does not exist", expected="a file that can be read there") from error
        reason = " ".join(str(unknown).split()) or type(unknown).__name__
        raise DataError(
            f"{url} cannot be read: {reason}",
            expected="a URL that fsspec reads, with access to it from here",
            hint="check the URL, the network and your credentials (such as AWS_PROFILE or AWS_ENDPOINT_URL)",
        ) from error
