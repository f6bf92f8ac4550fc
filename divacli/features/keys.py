"""Keys of images: the digest of a file's content, so that no feature is ever taken for another image's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from divacli.errors import DataError
from divacli.features.digests import KnownDigests
from divacli.files.containers import in_parquet, reading_order
from divacli.files.path_or_url import file_digest, place_of
from divacli.files.tar import MAX_BYTES
from divacli.progress import Progress

KEY_BYTES = 32
_TOGETHER = 16


def content_keys(
    files: Sequence[str], progress: Progress, cache: Path | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """SHA-256 of every file.

    Args:
        files: Paths, absolute where there is a cache, or URLs.
        progress: Told of every file that is done.
        cache: Folder for what is kept between commands, among it the digests of files; those that have not
            changed since are not read again. Without it all are.

    Returns:
        Keys (n, 32) uint8, and the reason for each file (by position) that could not be read.
    """
    known = None if cache is None else KnownDigests(files, cache / "digests")
    keys = np.zeros((len(files), KEY_BYTES), np.uint8) if known is None else known.digests
    todo = np.arange(len(files)) if known is None else np.flatnonzero(~known.found)
    unreadable: dict[int, str] = {}
    # Rows of Parquet files one by one: threads far apart would each decode all that is before them.
    apart = np.array([in_parquet(files[row]) for row in todo.tolist()], bool)
    rows = todo[apart][reading_order([files[row] for row in todo[apart].tolist()])].tolist()
    others = todo[~apart]
    # Hashing releases the interpreter lock, and waiting for a disk or a network needs no core.
    with (
        ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool,
        progress("reading", len(files)) as advance,
    ):
        if len(todo) < len(files):
            advance(len(files) - len(todo))
        # Several at a time: to hand a small file over costs as much as to hash it.
        parts = (others[start : start + _TOGETHER].tolist() for start in range(0, len(others), _TOGETHER))
        digested = pool.map(lambda part: [(row, _digest(files[row])) for row in part], parts)
        in_turn = ([(row, _digest(files[row]))] for row in rows)
        for position, digest in chain.from_iterable(chain(digested, in_turn)):
            if isinstance(digest, bytes):
                keys[position] = np.frombuffer(digest, np.uint8)
            else:
                unreadable[position] = digest
            advance(1)
    if known is not None:
        read = np.array([row for row in todo.tolist() if row not in unreadable], np.int64)
        known.remember(read, keys[read])
    return keys, unreadable


def _digest(file: str) -> bytes | str:
    try:
        return file_digest(place_of(file), MAX_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except DataError as error:
        return error.got


def digest_of(*parts: bytes) -> str:
    """Hexadecimal SHA-256 of some byte strings, each counted with its length."""
    return digest_of_all(parts)


def digest_of_all(parts: Iterable[bytes]) -> str:
    """As `digest_of`, of byte strings that need not be in memory together."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()
