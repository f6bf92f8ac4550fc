"""Files by their local path or by a URL: what is there, its bytes, and ranges of them.

Local files are read by the operating system alone; their paths may go through an uncompressed tar file as
through a folder. A URL (`s3://`, `gs://`, `https://`, `memory://` ...) goes through fsspec, which is imported
for the first of them.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import functools
import hashlib
import os
import posixpath
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from divacli.errors import DataError, DivaError
from divacli.files.regular import LARGEST, open_regular, read_at_most, read_regular
from divacli.files.tar import MAX_BYTES, members, read_member, through_tar

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

KINDS = (
    "a folder with one sub-folder a class, a .csv .tsv .jsonl .parquet .npz or .tar file, "
    "or - for standard input"
)
"""What DATA may be on this machine."""

STORE_FILE = "store.json"
"""What a folder is a feature store by."""

RUN_FILE = "run.json"
"""What a folder of results is known by: which commands wrote what into it."""

STAGE = ".diva-staged"
"""Where the files of a command wait until all of them are there (`divacli.files.staging`)."""

COMMIT = "commit.json"
"""The note in it that says that they are there, and are being put into place."""

_MOMENTS = 20  # looks at a note, a twentieth of a second apart: a command that runs takes it away

# With the caches of fsspec before it, if any: filecache::s3://bucket/features.npz
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file", "local")

# What URLs are read by. Whoever writes a table chooses them, and others that fsspec knows do more than
# read the bytes of a file: references are templates, which may tell what the environment holds.
_PROTOCOLS = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "http", "https", "ftp", "sftp"),
    *("ssh", "hdfs", "webhdfs", "memory", *_LOCAL),
)
_CACHES = ("filecache", "simplecache", "blockcache")

# User and password before the host; a signature or a token in the query or fragment.
_SECRETS = re.compile(
    r"(?P<start>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+://)(?:[^\s/?#]*@)?(?P<address>[^\s?#]*)(?:[?#]\S*)?"
)

# What to install for a protocol that fsspec leaves to another package.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "huggingface_hub",
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
}

_BRACES = re.compile(r"\{(?:(?P<start>\d+)\.\.(?P<stop>\d+)|(?P<words>[^{}]*,[^{}]*))\}", re.ASCII)

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
        return posixpath.basename(_path_of(self.url))

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


Place = Path | RemoteFile
"""Where a file is."""


def is_url(name: str) -> bool:
    """Whether a name is a URL of something that does not lie in the local file system."""
    found = _URL.match(name) if "://" in name else None
    return found is not None and not (found.end() == len(found[1]) + 3 and found[1].lower() in _LOCAL)


def without_secrets(text: str) -> str:
    """A name or a sentence, without what the URLs in it may hold beside the address: passwords and keys."""
    return _SECRETS.sub(r"\g<start>\g<address>", text)


def place_of(name: str) -> Place:
    """Where a file that is called so lies; `file:///home/a` is the path `/home/a`."""
    return RemoteFile(name) if is_url(name) else Path(_local(name))


def joined(folder: Place | str, name: str) -> str:
    """The path or URL of a file, as a table in a folder calls it: relative, absolute, or by a URL."""
    if "://" in name:
        if is_url(name):
            return name
        name = _local(name)
    base = str(folder)
    if posixpath.isabs(name) or not is_url(base):
        return posixpath.join(base, name)
    # Each step up takes one part of the path, and the name of the bucket or server stays.
    start, host, path = re.fullmatch(r"(.*?://)([^/]*)(.*)", base).groups()  # type: ignore[union-attr]
    return f"{start}{host}{posixpath.normpath(posixpath.join('/', path, name))}"


def suffix_of(name: str) -> str:
    """What a file's name ends with, in small letters and without the dot; of a URL, the end of its path."""
    return posixpath.splitext(_path_of(name))[1].lower().removeprefix(".")


def read_bytes(file: str) -> bytes:
    """All bytes of a sample's file.

    Args:
        file: As `Manifest.files` names it: a path, which may go through a tar file as through a folder, or a
            URL.

    Raises:
        OSError: A local file cannot be read, is no regular file, or larger than any image.
        DataError: Another one cannot.
    """
    member = through_tar(file)
    if member is not None:
        return read_member(*member)
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
    """Whether a path leads to a regular file, or to one in a tar file.

    Raises:
        DataError: The tar file is not usable.
    """
    member = through_tar(file)
    if member is not None:
        return member[1] in members(member[0])
    return os.path.isfile(file)  # noqa: PTH113  # Path.is_file raises on some names


def is_special(file: str) -> bool:
    """Whether a path leads to what is neither a file nor a folder: a pipe, a socket or a device."""
    try:
        mode = status_of(file).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def status_of(file: str) -> os.stat_result:
    """What the file system says of a file; of one in a tar file, of the tar file.

    Raises:
        OSError: There is no such file.
        ValueError: There can be none of that name.
    """
    member = through_tar(file)
    return os.stat(file if member is None else member[0])  # noqa: PTH116  # a third faster than Path


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
    member = through_tar(str(place))
    if member is not None:
        return hashlib.sha256(read_member(*member)).digest()
    with open_regular(place, most) as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def require_present(*names: str | None) -> None:
    """Refuse DATA on this machine that is not there; a look at what it holds comes later.

    Args:
        names: As on the command line; None and "-" name no file.

    Raises:
        DataError: Which one.
    """
    for name in names:
        if not name or name == "-" or is_url(name):
            continue
        for path in map(Path, shard_names(_local(name))):
            try:
                require_finished(path)
                require_finished(path.parent, path.name)
                there = path.exists()
            except OSError:  # such as a name too long: whoever reads it says so
                continue
            if not there:
                raise _not_there(path)


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


def shard_names(data: str) -> Iterator[str]:
    """The tar files that a pattern such as `shard-{000..012}.tar` stands for; of any other name, itself.

    Args:
        data: In braces two numbers to count between, as wide as they are written, or words between commas.
    """
    found = _BRACES.search(data)
    if found is None or not data.lower().endswith(".tar") or os.path.lexists(data):
        yield data
        return
    start, stop = found["start"], found["stop"]
    if start is None:
        parts: Iterable[str] = found["words"].split(",")
    else:
        digits = max(len(end) if end.startswith("0") else 1 for end in (start, stop))
        first, last = int(start), int(stop)
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        parts = (f"{number:0{digits}d}" for number in numbers)
    for part in parts:
        yield from shard_names(data[: found.start()] + part + data[found.end() :])


def _not_there(path: Path) -> DataError:
    try:
        present = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        present = []
    close = difflib.get_close_matches(path.name, present, n=1)
    hint = f"did you mean {path.with_name(close[0])}?" if close else "check the spelling"
    return DataError(f"{path} does not exist", expected=KINDS, hint=hint)


def _local(name: str) -> str:
    found = _URL.match(name)
    return name[found.end() :] if found is not None and not is_url(name) else name


def _path_of(name: str) -> str:
    if not is_url(name):
        return name
    # Not urlsplit, which raises on what is none: a cell of a table may hold anything.
    address = re.split("[?#]", name.rpartition("::")[2], maxsplit=1)[0]
    return "/".join(address.split("/")[3:])


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
        protocol = _URL.match(url)[1].lower()  # type: ignore[index]
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
