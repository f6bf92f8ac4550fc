"""The files of a feature store: opened, compared with what names them, set aside where they are damaged."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from divacli.errors import StoreError
from divacli.features.keys import KEY_BYTES
from divacli.files.path_or_url import STORE_FILE, Place, read_range, read_whole, size_of
from divacli.files.regular import DOCUMENT_BYTES, open_regular, reason
from divacli.files.remote import RemoteFile
from divacli.files.write import output_error
from divacli.manifest import ArrayFile

FORMAT = 1
NAME_LENGTH = 32  # hexadecimal digits of a digest
SHARDS = f"shard-{'[0-9a-f]' * NAME_LENGTH}.safetensors"
ASIDE = ".damaged"  # what the name of a shard that was set aside ends with
HEAD_FILE = "head.safetensors"
_HEADER_BYTES = 1024  # the header of a shard is shorter, so that one request brings it
_ABANDONED = 3600  # seconds since a temporary file was last written to
_REQUESTS = 16  # shards at a URL that are opened side by side
MEND = "run the diva embed command again that made this store: it makes again what is damaged"


def tidy(folder: Path) -> None:
    """Remove the temporary files of processes that were killed; others may be writing theirs just now."""
    for file in folder.glob(".diva-*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _ABANDONED:
                file.unlink()


def is_whole(shard: Path) -> bool:
    """Whether the content of a shard is what its name was made from; it is read once in a process."""
    try:
        found = shard.stat()
        return _has_its_name(shard, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    except OSError:  # such as a shard that another process has set aside
        return False


@functools.cache
def _has_its_name(shard: Path, state: tuple[int, ...]) -> bool:
    """Whether a shard in this state, of which the first number is its size, has the content that names it."""
    with open_regular(shard) as stream:
        # As `digest_of` does it with a content in memory.
        total = hashlib.file_digest(stream, lambda: hashlib.sha256(state[0].to_bytes(8, "little")))
    return shard.name == f"shard-{total.hexdigest()[:NAME_LENGTH]}.safetensors"


def set_aside(file: Place) -> list[str]:
    """Rename a file, so that nobody takes it for a part of the store; its name, where it was there.

    It is not deleted: what has damaged it may matter to its owner, and nothing of theirs is ever removed.
    """
    assert isinstance(file, Path)
    try:
        file.replace(file.with_name(file.name + ASIDE))
    except FileNotFoundError:  # another process was first
        return []
    except OSError as error:
        raise output_error(str(file), error) from error
    return [file.name]


def open_shards(
    shards: Sequence[Place], n_features: int
) -> Iterator[tuple[ArrayFile, np.ndarray] | StoreError]:
    """Features (where they lie) and keys of each shard, or what is wrong with it."""
    if not any(isinstance(shard, RemoteFile) for shard in shards):
        for shard in shards:
            yield _open_shard(shard, n_features)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(lambda shard: _open_shard(shard, n_features), shards)


def _open_shard(path: Place, n_features: int) -> tuple[ArrayFile, np.ndarray] | StoreError:
    """Features (where they lie) and keys of one shard, or what is wrong with it."""
    try:
        beginning = read_range(path, 0, _HEADER_BYTES)
        start = 8 + int.from_bytes(beginning[:8], "little")
        if not 8 < start <= len(beginning):
            raise ValueError("no header")
        header = json.loads(beginning[8:start])
        spans = {name: header[name]["data_offsets"] for name in ("features", "keys")}
        m, d = header["features"]["shape"]
        if (
            header["features"]["dtype"] != "F32"
            or d != n_features
            or header["keys"]["shape"] != [m, KEY_BYTES]
            or [stop - start for start, stop in spans.values()] != [4 * m * d, m * KEY_BYTES]
        ):
            raise ValueError(f"features {header['features']}, keys {header['keys']}")
        if size_of(path) != start + max(stop for _, stop in spans.values()):
            raise ValueError("truncated")
        features = ArrayFile(path, start + spans["features"][0], (m, d), np.dtype(np.float32))
        keys = ArrayFile(path, start + spans["keys"][0], (m, KEY_BYTES), np.dtype(np.uint8))
        return features, keys[:]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return damage(path, reason(error), f"a whole file with {n_features} features a row")


def damage(path: Place, reason: str, expected: str = "the file as it was written") -> StoreError:
    """The error about a file of a store; whoever reads it says to run `diva embed` again."""
    return StoreError(f"{path} is damaged ({reason})", expected=expected, hint=MEND)


class DamagedDescription(StoreError):
    """What should describe a store does not."""


def described(folder: Place) -> dict[str, Any]:
    """The description of a store.

    Raises:
        StoreError: One of a later format; a `DamagedDescription` where there is none.
    """
    path = folder / STORE_FILE
    try:
        content = json.loads(read_whole(path, DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedDescription(
            f"{path} cannot be read: {reason(error)}",
            expected="the description of a feature store",
            hint=MEND,
        ) from error
    if not isinstance(content, dict):
        raise DamagedDescription(
            f"{path} holds no description of a feature store", expected="a JSON object", hint=MEND
        )
    if content.get("format") != FORMAT:
        raise StoreError(
            f"{folder} is a feature store of format {content.get('format')!r}",
            expected=f"format {FORMAT}",
            hint="embed the images again with this version",
        )
    if not isinstance(content.get("n_features"), int) or not isinstance(content.get("identity"), dict):
        raise DamagedDescription(
            f"{path} lacks n_features or identity", expected="the description of a feature store", hint=MEND
        )
    return content
