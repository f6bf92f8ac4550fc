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
from typing import TYPE_CHECKING

from divacli.curate.runfile import RUN_FILE, RunFile, described
from divacli.errors import OutputError, listed
from divacli.lock import locked
from divacli.run import current
from divacli.staging import Stage, is_plain

if TYPE_CHECKING:
    import pandas as pd

    from divacli.manifest import Format, Manifest

_LOGGER = logging.getLogger(__name__)

FAILED = "failed"
"""The table of samples that could not be used."""

_FORMATS = ("csv", "jsonl", "parquet")


class ResultFiles:
    """Where the tables of a result go: files in a folder, or the main table to standard output.

    Nothing is in its place before `finish`. From the beginning to the end of it the folder is locked.

    Args:
        folder: The folder, which is made; None for standard output.
        format: Of the tables.
        makes: Files that will be written, tables without suffix: nothing of such a name may be there.
        overwrite: Whether it may, and is replaced.
        writes: Whether anything is written: of several processes that share the work the first one does.

    Raises:
        OutputError: The folder cannot be written to, holds such files, or is in use.
    """

    def __init__(
        self,
        folder: Path | None,
        format: Format,
        makes: tuple[str, ...] = (),
        *,
        overwrite: bool = False,
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self.written: list[str] = []
        self._format: Format = format
        self._overwrite = overwrite
        self._writes = writes
        self._parts: dict[str, pd.DataFrame] = {}
        self._late: Callable[[], None] = lambda: None
        self._stage: Stage | None = None
        self._held = ExitStack()
        if folder is None or not writes:
            return
        try:
            _prepare(folder, self._held)
            self._held.enter_context(locked(folder, wait=False))
            self._stage = Stage(folder)
            self._held.callback(self._stage.abandon)
            if not overwrite:
                self._require_free(in_any_format(makes))
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
        format: Format | None = None,
    ) -> None:
        """Write a table, its paths rewritten so that it can be read back from where it lies.

        Args:
            name: Of the file, without suffix.
            table: With a column path.
            origin: Absolute folder that its relative paths start from.
            main: The one table that goes to standard output where there is no folder.
            part: Whether its rows are samples of the input, which are in no other such table.
            format: Another one than that of the others.
        """
        from divacli.manifest import relocate, write_table

        moved = relocate(table, origin, self.base)
        if part:
            self._parts[name] = moved
        if not self._writes or (self.folder is None and not main):
            return
        written = format or self._format
        if self.folder is None:
            self._late = lambda: write_table(moved, None, written)
        else:
            write_table(moved, self.made(f"{name}.{written}"), written)

    def records(self, name: str, table: pd.DataFrame) -> None:
        """Write a table that is not one of samples, in a folder only."""
        from divacli.manifest import write_table

        if self._stage is not None:
            write_table(table, self.made(f"{name}.{self._format}"), self._format)

    def json(self, name: str, content: dict[str, object]) -> None:
        """Write a JSON file, in a folder only."""
        self.bytes(name, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())

    def bytes(self, name: str, content: bytes) -> None:
        """Write a file, in a folder only."""
        from divacli.manifest import write_bytes

        if self._stage is not None:
            write_bytes(self.made(name), content)

    def text(self, name: str, content: str) -> None:
        """Write a command's main result where it is text and no table."""
        if self.folder is not None:
            self.bytes(name, content.encode())
        elif self._writes:
            self._late = lambda: _print(content)

    def made(self, name: str) -> Path:
        """Where to make a file or folder of the result that will be called so; there is a folder for it."""
        assert self._stage is not None
        if name not in self.written:
            self.written.append(name)
        return self._stage.place(name)

    def finish(
        self,
        command: str = "",
        read: Sequence[Manifest] = (),
        *,
        relabelled: bool = False,
        whole: bool = True,
    ) -> None:
        """Put everything into its place, together; or write to standard output.

        Args:
            command: That made it; by default the one that is running.
            read: All samples of the input, where the tables that are parts must hold each of them once.
            relabelled: Whether labels may have changed on the way.
            whole: As of `RunFile.with_run`.

        Raises:
            OutputError: It cannot be written, or something else is there already.
            DivaError: Samples are lost, doubled or mixed up: a mistake in diva.
            BrokenPipeError: Whoever read standard output is gone.
        """
        from divacli.curate.accounting import account
        from divacli.manifest import write_bytes

        if not self._writes:
            return
        if read:
            account(read, list(self._parts.values()), self.base, labels=not relabelled)
        if self._stage is None:
            self._late()
            _LOGGER.info("wrote to standard output")
            return
        assert self.folder is not None
        command = command or current().command
        self._apart_from_others(command)
        if not self._overwrite:
            self._require_free([name for name in self.written if not self._unchanged(name)])
        samples = {"read": sum(len(one.table) for one in read)} if read else {}
        samples |= {name: len(table) for name, table in self._parts.items()}
        made = [self._stage.place(name) for name in self.written]
        about = described(current(), command, samples, made, self.folder)
        record, stale = self._record().with_run(about, whole=whole)
        write_bytes(self._stage.place(RUN_FILE), record.encoded())
        self._stage.commit([*self.written, RUN_FILE], [name for name in stale if is_plain(name)])
        for name, found in about["outputs"].items():
            _LOGGER.info("wrote %s: %s", self.folder / name, found)
        _LOGGER.info("samples %s", samples)
        self.close()

    def _apart_from_others(self, command: str) -> None:
        """Call the samples that failed after the command, where those of another one are called so already.

        Every command writes such a table, and in one folder it often is the same one.
        """
        assert self._stage is not None
        assert self.folder is not None
        for number, name in enumerate(self.written):
            stem, _, suffix = name.partition(".")
            if stem != FAILED or not os.path.lexists(self.folder / name) or self._unchanged(name):
                continue
            if self._record().maker_of(name) != command:
                self.written[number] = f"{FAILED}-{command}.{suffix}"
                self._stage.place(name).rename(self._stage.place(self.written[number]))

    def _unchanged(self, name: str) -> bool:
        """Whether a file of the name is there already, with the same content."""
        assert self._stage is not None
        assert self.folder is not None
        there, made = self.folder / name, self._stage.place(name)
        return there.is_file() and made.is_file() and filecmp.cmp(there, made, shallow=False)

    def _record(self) -> RunFile:
        """The runs that the folder holds; a record that cannot be read may be replaced where all may be."""
        assert self.folder is not None
        try:
            return RunFile.read(self.folder)
        except OutputError:
            if not self._overwrite:
                raise
            return RunFile()

    def _require_free(self, names: Iterable[str]) -> None:
        """Refuse to replace files.

        Raises:
            OutputError: Some are there.
        """
        assert self.folder is not None
        there = [name for name in names if os.path.lexists(self.folder / name)]
        record = self._record()
        if there:
            makers = dict.fromkeys(filter(None, map(record.maker_of, there)))
            of = f" of diva {', '.join(makers)}" if makers else ""
            raise OutputError(
                f"{self.folder} holds {listed(there)}{of} already",
                expected="a folder without such files: results are not replaced unless that is asked for",
                hint="replace them with --overwrite, or choose another folder with --out",
            )


def in_any_format(names: Iterable[str]) -> list[str]:
    """Names of files, those without suffix with each that a table may have."""
    return [
        full
        for name in names
        for full in ([name] if "." in name else [f"{name}.{suffix}" for suffix in _FORMATS])
    ]


def _prepare(folder: Path, held: ExitStack) -> None:
    """Make the folder now: an hour of embedding is a bad time to learn that it cannot be written to.

    Args:
        folder: Where to.
        held: Removes it again if it is empty in the end.

    Raises:
        OutputError: It is none, or cannot be written to.
    """
    if folder.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
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
