"""Digests of files that were read before, so that a file that has not changed is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from divacli.errors import OutputError
from divacli.files.lock import locked
from divacli.files.path_or_url import status_of
from divacli.files.regular import read_regular
from divacli.files.tar import MAX_BYTES
from divacli.files.write import write_bytes

_ENTRY = np.dtype([("path", "<u8", 2), ("state", "<i8", 4), ("digest", "u1", 32)])
_CHECK_BYTES = 32

_SETTLED = 10 * 10**9
"""A digest is remembered of files that last changed so many nanoseconds before they were looked at. Of one
that changed later there may be two contents under one time stamp: clocks of file systems tick in up to two
seconds, and that of a file server may differ from this machine's."""

_SET_BACK = 10**9
"""Nanoseconds that the clock may lose while it is compared with one that is never set."""


class KnownDigests:
    """What is remembered of some files: one small file in a folder, for all files below the same folder.

    A file is known again by its path, size, inode, and times of last change of its content (mtime) and of
    anything (ctime, which no program can set). After the clock was set back, times that now lie in the future
    prove nothing, and a run that sees it happen remembers nothing. Several processes may remember at once. A
    damaged file counts as none.

    Args:
        files: Paths (n).
        folder: Where it lies; made when something is remembered.

    Attributes:
        digests: (n, 32) uint8 SHA-256; zeros where unknown.
        found: (n,) bool, which are known.
    """

    def __init__(self, files: Sequence[str], folder: Path) -> None:
        self._files = files
        self._started, self._running = time.time_ns(), time.monotonic_ns()
        self._state = _states(files)
        self._paths = _names(files)
        self._target = folder / f"{hashlib.sha256(os.fsencode(_top(files))).hexdigest()[:32]}.bin"
        self._entries = _read(self._target)
        place = np.searchsorted(self._entries["path"][:, 0], self._paths[:, 0])
        place = place.clip(max=max(len(self._entries) - 1, 0))
        same = self._entries[place] if len(self._entries) else np.zeros(len(files), _ENTRY)
        self.found = (same["path"] == self._paths).all(axis=1) & (same["state"] == self._state).all(axis=1)
        self.found &= self._settled(self._state)
        self.digests = np.where(self.found[:, None], same["digest"], np.uint8(0))

    def remember(self, rows: np.ndarray, digests: np.ndarray) -> None:
        """Keep digests for another time, of those files that have not changed while they were read.

        Args:
            rows: (m,) numbers of the files that were read.
            digests: (m, 32) uint8.
        """
        state = self._state[rows]
        settled = self._settled(state)
        settled &= (state == _states([self._files[row] for row in rows])).all(axis=1)
        if time.time_ns() - self._started < time.monotonic_ns() - self._running - _SET_BACK:
            settled[:] = False
        read, rows, digests = self._paths[rows, 0], rows[settled], digests[settled]
        new = np.zeros(len(rows), _ENTRY)
        new["path"], new["state"], new["digest"] = self._paths[rows], self._state[rows], digests
        with contextlib.suppress(OutputError, OSError):  # a cache that cannot be written is none
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._target.parent, wait=True):
                known = _read(self._target)
                # What was read again may have changed, also where it is not known by when.
                kept = known[~np.isin(known["path"][:, 0], read)]
                if len(new) or len(kept) < len(known):
                    entries = np.concatenate([new, kept])
                    # Sorted, and of two paths with the same digest one.
                    _, first = np.unique(entries["path"][:, 0], return_index=True)
                    content = entries[first].tobytes()
                    write_bytes(self._target, hashlib.sha256(content).digest() + content)

    def _settled(self, state: np.ndarray) -> np.ndarray:
        """Which files are there, last changed long before they were looked at, (m,) bool; by their states."""
        changed = np.maximum(state[:, 1], state[:, 2])
        return (state[:, 0] >= 0) & (changed < self._started - _SETTLED)


def _read(target: Path) -> np.ndarray:
    """What is remembered, sorted by path; nothing where the file is missing or damaged."""
    try:
        data = read_regular(target, MAX_BYTES)
    except OSError:
        return np.zeros(0, _ENTRY)
    check, content = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
    if hashlib.sha256(content).digest() != check or len(content) % _ENTRY.itemsize:
        return np.zeros(0, _ENTRY)
    return np.frombuffer(content, _ENTRY)


def _top(files: Sequence[str]) -> str:
    """The folder that all files lie below."""
    # Of the first and last name in the alphabet, for whatever is between them begins alike.
    return os.path.commonprefix([min(files), max(files)]).rpartition("/")[0] if files else ""  # noqa: RUF071


def _names(files: Sequence[str]) -> np.ndarray:
    """A digest of each path, (n, 2) uint64."""
    names = b"".join(hashlib.blake2b(os.fsencode(file), digest_size=16).digest() for file in files)
    return np.frombuffer(names, "<u8").reshape(-1, 2)


def _states(files: Sequence[str]) -> np.ndarray:
    """Size, mtime, ctime and inode of each file, (n, 4) int64; -1 where there is none."""
    states = np.full((len(files), 4), -1, np.int64)
    for row, file in enumerate(files):
        with contextlib.suppress(OSError, ValueError):
            found = status_of(file)
            states[row] = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, _signed(found.st_ino))
    return states


def _signed(inode: int) -> int:
    """The lower 63 bits: file systems on a network make use of all 64."""
    return inode & ((1 << 63) - 1)
