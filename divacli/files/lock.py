"""A lock on a folder that the system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from divacli.errors import OutputError
from divacli.run_record import current

_SILENT_SECONDS = 2.0
"""How long a lock is waited for without a word."""

LOCK_FILE = ".diva.lock"
"""The file that the lock is on. What it says is for people; what holds is the system's lock on it."""


class InUse(OutputError):
    """Another process holds the lock."""


@contextmanager
def locked(folder: Path, *, wait: bool, name: str = LOCK_FILE) -> Iterator[None]:
    """Hold a lock of a folder.

    It is a `flock` on a file in the folder: nothing is left to be cleaned up after a kill or a crash, and an
    old file that nobody holds is no obstacle. Where a file system has no locks, nothing is locked.

    Args:
        folder: Is there, and can be written to.
        wait: Wait for whoever holds it, instead of refusing; whoever watches the run is told if that is long.
        name: Of the file: which of the folder's locks.

    Raises:
        InUse: Another process holds it.
        OutputError: The file cannot be made.
    """
    file = folder / name
    descriptor = _opened(file, wait=wait)
    try:
        yield
    finally:
        # While it is held: who waits for it finds another file in its place, or none, and tries again.
        with contextlib.suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _opened(file: Path, *, wait: bool) -> int:
    """The file, locked and in its place."""
    while True:
        try:
            # What somebody has put there is not followed, waited for or written to.
            descriptor = os.open(
                file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644
            )
        except OSError as error:
            link = error.errno == errno.ELOOP
            raise OutputError(
                f"{file} {'is a link' if link else f'cannot be made: {error.strerror}'}",
                expected="a folder that can be written to" + (", without such a link" if link else ""),
                hint="remove it" if link else "choose another one with --out or --cache-dir",
            ) from error
        found = os.fstat(descriptor)
        # Another name of a file that somebody needs would be written to, too.
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OutputError(
                f"{file} is {'another name of a file' if stat.S_ISREG(found.st_mode) else 'no regular file'}",
                expected="a file of its own, or none",
                hint="remove it",
            )
        try:
            if not _free(descriptor):
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                said = f"{file.parent} is in use{f' by {holder}' if holder else ''}"
                if not wait:
                    raise InUse(
                        said,
                        expected="one command that writes into a folder at a time",
                        hint="wait until it has ended, or choose another folder with --out",
                    )
                _wait(descriptor, f"waiting: {said}")
        except BaseException:
            os.close(descriptor)
            raise
        if _in_place(file, descriptor):
            with contextlib.suppress(OSError):  # a full disk
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)


def _free(descriptor: int) -> bool:
    """Lock a file, unless another process has; where a file system has no locks it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _wait(descriptor: int, said: str) -> None:
    """Lock a file as soon as its holder lets go of it.

    Args:
        descriptor: The file.
        said: What whoever watches the run is told, where it takes long.
    """
    late = threading.Timer(_SILENT_SECONDS, current().tell, [said])
    late.daemon = True
    late.start()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        late.cancel()


def _in_place(file: Path, descriptor: int) -> bool:
    """Whether the file that was locked is still the one of that name."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)
