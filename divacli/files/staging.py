"""Files that appear in a folder together: all of those a command writes, or none.

They are made in a hidden folder inside the one they are for. When all are there and on disk, a note says so.
Then they are renamed into place.

A kill before the note changes nothing: the next command that writes there throws away the hidden folder.
A kill between two renames leaves the note, and what is not in place yet. That tells everybody who looks there
that files may be of two runs (`divacli.files.path_or_url.require_finished`). Their owner removes the hidden
folder, and runs the same command again. Nobody carries a note out, for it may be a stranger's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from divacli.errors import OutputError, listed
from divacli.files.path_or_url import COMMIT, STAGE, require_finished
from divacli.files.write import output_error


class Stage:
    """Where the files of a command wait for each other.

    Args:
        folder: That they are for. It is there, and locked by this process (`divacli.files.lock`) until they
            are in place.

    Raises:
        DataError: A command was killed while it put files into place.
        OutputError: Something else than a folder is where files would wait.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stage = folder / STAGE
        self._made = False
        with _explained(folder):
            if self._stage.is_symlink() or (self._stage.exists() and not self._stage.is_dir()):
                raise OutputError(
                    f"{self._stage} is {'a link' if self._stage.is_symlink() else 'no folder'}",
                    expected="a folder that diva has made, or nothing",
                    hint="remove it, or choose another folder with --out",
                )
            require_finished(folder)
            if self._stage.exists():
                shutil.rmtree(self._stage)

    def place(self, name: str) -> Path:
        """Where to make the file or folder that will be called so."""
        if not self._made:
            with _explained(self._folder):
                # New and for this user alone: nobody else may swap what waits in it.
                self._stage.mkdir(mode=0o700)
            self._made = True
        return self._stage / name

    def commit(self, names: Sequence[str], stale: Sequence[str] = ()) -> None:
        """Put files into place instead of files that are there.

        Ctrl-C and SIGTERM are answered when that is done.

        Args:
            names: Of files and folders that were made; files are on disk already.
            stale: Of files in the folder that are removed with what they belonged to.

        Raises:
            OutputError: It cannot be done, or a folder is in the way: none is ever removed. Before that is
                certain, nothing has changed.
        """
        folders = [name for name in (*names, *stale) if _is_folder(self._folder / name)]
        if folders:
            raise OutputError(
                f"{self._folder} holds the folder {listed(folders)}, which would have to go",
                expected="no folders in the way: diva removes none",
                hint="remove it yourself, or choose another place with --out",
            )
        with _explained(self._folder), _undisturbed():
            note = self._stage / f"{COMMIT}.tmp"
            with note.open("x") as file:
                json.dump({"names": list(names), "stale": list(stale)}, file)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._stage)
            note.replace(self._stage / COMMIT)
            sync_folder(self._stage)
            for name in stale:
                (self._folder / name).unlink(missing_ok=True)
            # Folders last: where one is in place, the same command can only be run again without it.
            for name in sorted(names, key=lambda name: (self._stage / name).is_dir()):
                (self._stage / name).replace(self._folder / name)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
            (self._stage / COMMIT).unlink()
            shutil.rmtree(self._stage, ignore_errors=True)

    def abandon(self) -> None:
        """Throw away what this command has made, unless some of it is in place."""
        if self._made and not os.path.lexists(self._stage / COMMIT):
            shutil.rmtree(self._stage, ignore_errors=True)


def is_plain(name: object) -> bool:
    """Whether something is the name of a file in a folder, and leads nowhere else."""
    return isinstance(name, str) and name not in ("", ".", "..", STAGE) and not set(name) & {"/", "\0"}


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM, which only the main thread answers, until the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    answered = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: came.append(number)) for number in answered]
    try:
        yield
    finally:
        for number, handler in zip(answered, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(str(folder), error) from error
