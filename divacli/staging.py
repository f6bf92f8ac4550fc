"""Files that appear in a folder together: all of those a command writes, or none.

They are made in a hidden folder inside of the one they are for. When all are there and on disk, a note says
so; from then on they are put into place, whatever happens: what a kill or a power cut left undone is done by
whoever looks at the folder next. Without the note nothing has happened, and what lies there is thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from divacli.errors import OutputError, listed
from divacli.files import COMMIT, STAGE
from divacli.manifest.write import output_error


class Stage:
    """Where the files of a command wait for each other.

    Args:
        folder: That they are for. It is there, and locked by this process (`divacli.lock`) until they are in
            place.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stage = folder / STAGE
        recover(folder)

    def place(self, name: str) -> Path:
        """Where to make the file or folder that will be called so."""
        with _explained(self._folder):
            self._stage.mkdir(exist_ok=True)
        return self._stage / name

    def commit(self, names: Sequence[str], stale: Sequence[str] = ()) -> None:
        """Put files into place, in this order, instead of files that are there.

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
        with _explained(self._folder):
            note = self._stage / f"{COMMIT}.tmp"
            with note.open("x") as file:
                json.dump({"names": list(names), "stale": list(stale)}, file)
                file.flush()
                os.fsync(file.fileno())
            _flush(self._stage)
            note.replace(self._stage / COMMIT)
            _flush(self._stage)
            _forward(self._folder)

    def abandon(self) -> None:
        """Throw away what is not in place yet."""
        if not (self._stage / COMMIT).is_file():
            shutil.rmtree(self._stage, ignore_errors=True)


def recover(folder: Path) -> None:
    """Finish what a command was killed at that wrote into a folder, which is locked by this process.

    Raises:
        OutputError: It cannot be finished.
    """
    stage = folder / STAGE
    with _explained(folder):
        if stage.is_symlink():
            raise OutputError(
                f"{stage} is a link",
                expected="a folder that diva has made, or nothing",
                hint="remove it, or choose another folder with --out",
            )
        if (stage / COMMIT).is_file():
            _forward(folder)
        elif stage.exists():
            shutil.rmtree(stage)


def _forward(folder: Path) -> None:
    """Do what the note says, from wherever it was left."""
    stage = folder / STAGE
    names, stale = _noted(stage / COMMIT)
    for name in names:
        made, target = stage / name, folder / name
        if os.path.lexists(made):
            made.replace(target)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    _flush(folder)
    (stage / COMMIT).unlink()
    shutil.rmtree(stage, ignore_errors=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _noted(note: Path) -> tuple[list[str], list[str]]:
    """What is put into place and what is removed, of names in the folder alone: the note may be forged."""
    try:
        content = json.loads(note.read_bytes())
        names, stale = list(content["names"]), list(content["stale"])
    except (ValueError, KeyError, TypeError, RecursionError):
        names, stale = [""], []
    if not all(is_plain(name) for name in (*names, *stale)):
        raise OutputError(
            f"{note} was not written by diva",
            expected="names of files that are put into place",
            hint=f"remove {note.parent} and run the command again",
        )
    return names, stale


def is_plain(name: object) -> bool:
    """Whether something is the name of a file in a folder, and leads nowhere else."""
    return isinstance(name, str) and name not in ("", ".", "..", STAGE) and not set(name) & {"/", "\0"}


def _flush(folder: Path) -> None:
    """Have the names in a folder on disk, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(str(folder), error) from error
