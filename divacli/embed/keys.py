"""Keys of images: the digest of a file's content, so that no feature is ever taken for another image's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from divacli.embed.progress import Progress

KEY_BYTES = 32


def content_keys(files: Sequence[str], progress: Progress) -> tuple[np.ndarray, dict[int, str]]:
    """SHA-256 of every file.

    Args:
        files: Paths.
        progress: Told of every file that is done.

    Returns:
        Keys (n, 32) uint8, and the reason for each file (by position) that could not be read.
    """
    keys = np.zeros((len(files), KEY_BYTES), np.uint8)
    unreadable: dict[int, str] = {}
    # Hashing releases the interpreter lock, and waiting for a disk or a network needs no core.
    with (
        ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool,
        progress("reading", len(files)) as advance,
    ):
        for position, digest in enumerate(pool.map(_digest, files)):
            if isinstance(digest, bytes):
                keys[position] = np.frombuffer(digest, np.uint8)
            else:
                unreadable[position] = digest
            advance(1)
    return keys, unreadable


def file_digest(file: Path) -> bytes:
    """SHA-256 of a file's content.

    Raises:
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _digest(file: str) -> bytes | str:
    try:
        return file_digest(Path(file))
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def digest_of(*parts: bytes) -> str:
    """Hexadecimal SHA-256 of some byte strings, each counted with its length."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()
