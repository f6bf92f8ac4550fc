"""The files of a result, all or none: into a folder, with a record of the run, or to standard output."""

from __future__ import annotations

import filecmp
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divacli.errors import OutputError, listed
from divacli.files.formats import TABLE_FORMATS, WRITTEN_FORMATS, Format
from divacli.files.lock import locked
from divacli.files.path_or_url import RUN_FILE
from divacli.files.staging import Stage, is_plain
from divacli.results.names import FAILED
from divacli.results.runfile import RunFile, described, recorded_output
from divacli.run_record import current

if TYPE_CHECKING:
    import pandas as pd

    from divacli.manifest import Manifest

_LOGGER = logging.getLogger(__name__)


class TakenError(OutputError):
    """Files of the same names are there already.

    Attributes:
        makers: The commands that wrote them.
    """

    makers: frozenset[str] = frozenset()


class ResultFiles:
    """Where the tables of a result go: files in a folder, or the main table to standard output.

    Nothing is in its place before `finish`. From the beginning to the end of it the folder is locked.

    Args:
        folder: The folder, which is made; None for standard output.
        format: Of the tables.
        makes: Files that will be written, tables without suffix: nothing of such a name may be there.
        command: That makes it; by default the one that is running.
        overwrite: Whether files of this command, or of unknown origin, may be there, and are replaced.
        recorded: Whether `run.json` says so.
        writes: Whether anything is written: of several processes that share the work the first one does.

    Raises:
        OutputError: The folder cannot be written to, holds such files, or is in use.

    Attributes:
        format: Of the tables.
        writes: As given.
        written: Names of the files.
        outdated: Files in the folder that other commands made of what was replaced.
    """

    def __init__(
        self,
        folder: Path | None,
        format: Format,
        makes: tuple[str, ...] = (),
        *,
        command: str = "",
        overwrite: bool = False,
        recorded: bool = True,
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self.written: list[str] = []
        self.format: Format = format
        self._command = command or current().command
        self._makes = in_any_format(makes)
        self._overwrite = overwrite
        self._recorded = recorded
        self.writes = writes
        self._parts: dict[str, pd.DataFrame] = {}
        self._relabelled = False
        self._late: Callable[[], None] = lambda: None
        self._stage: Stage | None = None
        self._held = ExitStack()
        self.outdated: list[str] = []
        if folder is None:
            return
        if not writes:
            # Whoever writes is refused now, too; this one is not to wait for it.
            self.require_free(self._makes, self._command)
            return
        try:
            _prepare(folder, self._held)
            self._held.enter_context(locked(folder, wait=False))
            self._stage = Stage(folder)
            self._held.callback(self._stage.abandon)
            self.require_free(self._makes, self._command)
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> ResultFiles:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Throw away what is not in its place, and let others write into the folder."""
        self._held.close()

    @property
    def base(self) -> Path:
        """The folder that relative paths in written tables start from."""
        return Path.cwd() if self.folder is None else self.folder

    def table(
        self,
        name: str,
        table: pd.DataFrame,
        origin: Path,
        *,
        main: bool = False,
        part: bool = False,
        relabelled: bool = False,
        format: Format | None = None,
    ) -> None:
        """Write a table, its paths rewritten so that it can be read back from where it lies.

        Args:
            name: Of the file, without suffix.
            table: With a column path.
            origin: Absolute folder that its relative paths start from.
            main: The one table that goes to standard output where there is no folder.
            part: Whether its rows are samples of the input, which are in no other such table.
            relabelled: Whether their labels may be others than those that were read.
            format: Another one than that of the others.
        """
        from divacli.manifest import relocate, write_table

        moved = relocate(table, origin, self.base)
        if part:
            self._parts[name] = moved
            self._relabelled |= relabelled
        if not self.writes or (self.folder is None and not main):
            return
        written = format or self.format
        if self.folder is None:
            self._late = lambda: write_table(moved, None, written)
        else:
            write_table(moved, self.staged_path(f"{name}.{written}"), written)

    def records(self, name: str, table: pd.DataFrame) -> None:
        """Write a table that is not one of samples, in a folder only."""
        from divacli.manifest import write_table

        if self._stage is not None:
            write_table(table, self.staged_path(f"{name}.{self.format}"), self.format)

    def json(self, name: str, content: dict[str, object]) -> None:
        """Write a JSON file, in a folder only."""
        self.bytes(name, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())

    def bytes(self, name: str, content: bytes) -> None:
        """Write a file, in a folder only."""
        from divacli.files.write import write_bytes

        if self._stage is not None:
            write_bytes(self.staged_path(name), content)

    def text(self, name: str, content: str) -> None:
        """Write a command's main result where it is text and no table."""
        if self.folder is not None:
            self.bytes(name, content.encode())
        elif self.writes:
            self._late = lambda: _print(content)

    def staged_path(self, name: str) -> Path:
        """Where to make a file or folder of the result that will be called so; there is a folder for it."""
        assert self._stage is not None
        if name not in self.written:
            self.written.append(name)
        return self._stage.place(name)

    def finish(self, read: Sequence[Manifest] = (), *, whole: bool = True) -> None:
        """Put everything into its place, together; or write to standard output.

        Args:
            read: All samples of the input, where the tables that are parts must hold each of them once.
            whole: As of `RunFile.with_run`.

        Raises:
            OutputError: It cannot be written, or something else is there already.
            DivaError: Samples are lost, doubled or mixed up: a mistake in diva.
            BrokenPipeError: Whoever read standard output is gone.
        """
        from divacli.files.write import write_bytes
        from divacli.results.accounting import account

        if not self.writes:
            return
        if read:
            account(read, list(self._parts.values()), self.base, labels=not self._relabelled)
        if self._stage is None:
            self._late()
            _LOGGER.info("wrote to standard output")
            return
        assert self.folder is not None
        before = self._record()
        self._apart_from_others(before)
        unchanged = [name for name in self.written if self._unchanged(name)]
        replaced = [name for name in self.written if name not in unchanged]
        self.require_free(replaced, self._command)
        samples = {"read": sum(len(one.table) for one in read)} if read else {}
        samples |= {name: len(table) for name, table in self._parts.items()}
        made = [self._stage.place(name) for name in self.written]
        about = described(current(), self._command, samples, made, self.folder)
        record, gone = before.with_run(about, unchanged=unchanged, whole=whole)
        stale = [name for name, made in gone.items() if is_plain(name) and self._may_go(name, made)]
        if any(os.path.lexists(self.folder / name) for name in replaced):
            mine = {*self.written, *stale}
            made_here = RunFile(record.runs[:-1]).made_here()
            self.outdated = [
                name
                for name in dict.fromkeys([*made_here, *filter(is_plain, gone)])
                if name not in mine and os.path.lexists(self.folder / name)
            ]
        if self._recorded:
            write_bytes(self._stage.place(RUN_FILE), record.encoded())
        names = [*self.written, *([RUN_FILE] if self._recorded else [])]
        self._stage.commit(names, stale)
        for name, found in about["outputs"].items():
            _LOGGER.info("wrote %s: %s", self.folder / name, found)
        _LOGGER.info("samples %s", samples)
        self.close()

    def _apart_from_others(self, record: RunFile) -> None:
        """Call the samples that failed after the command, where those of another one are called so already.

        Every command writes such a table, and in one folder it often is the same one.
        """
        assert self._stage is not None
        assert self.folder is not None
        for number, name in enumerate(self.written):
            stem, _, suffix = name.partition(".")
            if stem != FAILED or not os.path.lexists(self.folder / name) or self._unchanged(name):
                continue
            if record.makers_of(name) != [self._command]:
                self.written[number] = f"{FAILED}-{self._command}.{suffix}"
                self._stage.place(name).rename(self._stage.place(self.written[number]))

    def is_of_others(self, name: str) -> bool:
        """Whether a file of the name is there that another command has made."""
        assert self.folder is not None
        return os.path.lexists(self.folder / name) and bool(
            set(self._record().makers_of(name)) - {self._command}
        )

    def _unchanged(self, name: str) -> bool:
        """Whether a file of the name is there already, with the same content."""
        assert self._stage is not None
        assert self.folder is not None
        there, made = self.folder / name, self._stage.place(name)
        return there.is_file() and made.is_file() and filecmp.cmp(there, made, shallow=False)

    def _may_go(self, name: str, made: dict[str, Any]) -> bool:
        """Whether a file is removed with the run that it was made by; a folder in its place is refused later.

        The record may be a stranger's, and name any file in the folder. So a file goes only if it is still
        what the record says that diva has written.
        """
        assert self.folder is not None
        place = self.folder / name
        try:
            return place.is_dir() or (place.is_file() and recorded_output(place) == made)
        except OSError:
            return False

    def _record(self) -> RunFile:
        """The runs that the folder holds."""
        assert self.folder is not None
        return RunFile.read(self.folder) if self._recorded else RunFile()

    def require_free(self, names: Iterable[str], command: str) -> None:
        """Refuse to replace files; with `overwrite`, those of other commands only.

        Args:
            names: Of what would be written.
            command: That would.

        Raises:
            TakenError: Some are there.
        """
        assert self.folder is not None
        record = self._record()
        there = [name for name in names if os.path.lexists(self.folder / name)]
        if not there:
            return
        makers = {name: record.makers_of(name) for name in there}
        foreign = [name for name in there if set(makers[name]) - {command}]
        if self._overwrite and not foreign:
            return
        named = foreign or there
        known = dict.fromkeys(maker for name in named for maker in makers[name])
        of = f" of diva {', '.join(known)}" if known else ""
        error = TakenError(
            f"{self.folder} holds {listed(named)}{of} already",
            expected="a folder without such files: results are not replaced unless that is asked for"
            if not foreign
            else "a folder without files of another command that have the same names",
            hint="choose another folder with --out"
            if foreign
            else "replace them with --overwrite, or choose another folder with --out",
        )
        error.makers = frozenset(maker for found in makers.values() for maker in found)
        raise error


def in_any_format(names: Iterable[str]) -> list[str]:
    """Names of files, those without suffix with each that a table may have."""
    return [
        full
        for name in names
        for full in ([name] if "." in name else [f"{name}.{suffix}" for suffix in WRITTEN_FORMATS])
    ]


def _prepare(folder: Path, held: ExitStack) -> None:
    """Make the folder now: an hour of embedding is a bad time to learn that it cannot be written to.

    Args:
        folder: Where to.
        held: Removes it again if it is empty in the end.

    Raises:
        OutputError: It is none, or cannot be written to.
    """
    if folder.suffix.lower().removeprefix(".") in TABLE_FORMATS:
        raise OutputError(
            f"--out {folder}",
            expected="a folder: results are several files",
            hint=f"use --out DIR, or --out - > {folder}",
        )
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be made: {error.strerror}",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        ) from error
    if new:
        held.callback(_remove_if_empty, folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"--out {folder} cannot be written to",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        )


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _print(content: str) -> None:
    sys.stdout.write(content)
    sys.stdout.flush()
