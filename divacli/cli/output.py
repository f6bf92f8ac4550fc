"""Where results go: files in a folder, written whole or not at all, or standard output.

Of several processes that share the work, the first one writes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from divacli.cli.options import OutputOptions
from divacli.cli.processes import leads
from divacli.errors import OutputError
from divacli.files import is_url

if TYPE_CHECKING:
    import pandas as pd


class Output:
    """Where a command's tables go: files in a folder, or its main table to standard output.

    Args:
        options: `--out` and `--format`.

    Raises:
        OutputError: `--out` is a file, a URL, or a folder that cannot be written to.
    """

    def __init__(self, options: OutputOptions) -> None:
        if is_url(options.out):
            raise OutputError(
                f"--out {options.out}",
                expected="a folder in a file system of this machine",
                hint="write the results there, and copy them",
            )
        self.folder = None if options.out == "-" else Path(options.out)
        self._format = options.format.value
        self.written: list[str] = []
        if self.folder is not None:
            _prepare(self.folder)

    @property
    def base(self) -> Path:
        """The folder that relative paths in written tables start from."""
        return Path.cwd() if self.folder is None else self.folder

    def table(self, name: str, table: pd.DataFrame, origin: Path, *, main: bool = False) -> None:
        """Write a table, its paths rewritten so that it can be read back from where it lies.

        Args:
            name: Of the file, without suffix.
            table: With a column path.
            origin: Absolute folder that its relative paths start from.
            main: The one table that goes to standard output with `--out -`.
        """
        from divacli.manifest import relocate, write_table

        if not leads() or (self.folder is None and not main):
            return
        moved = relocate(table, origin, self.base)
        target = None if self.folder is None else self.folder / f"{name}.{self._format}"
        write_table(moved, target, self._format)  # type: ignore[arg-type]
        if target is not None:
            self.written.append(target.name)

    def records(self, name: str, table: pd.DataFrame) -> None:
        """Write a table that is not one of samples, in a folder only."""
        from divacli.manifest import write_table

        if self.folder is not None and leads():
            target = self.folder / f"{name}.{self._format}"
            write_table(table, target, self._format)  # type: ignore[arg-type]
            self.written.append(target.name)

    def json(self, name: str, content: dict[str, object]) -> None:
        """Write a JSON file, in a folder only."""
        import json

        from divacli.manifest import write_text

        if self.folder is not None and leads():
            write_text(self.folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")
            self.written.append(name)

    def bytes(self, name: str, content: bytes) -> None:
        """Write a file of no text, in a folder only."""
        from divacli.manifest import write_bytes

        if self.folder is not None and leads():
            write_bytes(self.folder / name, content)
            self.written.append(name)

    def text(self, name: str, content: str) -> None:
        """Write a command's main result where it is text and no table."""
        from divacli.manifest import write_text

        if not leads():
            return
        if self.folder is None:
            typer.echo(content, nl=False)
        else:
            write_text(self.folder / name, content)
            self.written.append(name)


def _prepare(folder: Path) -> None:
    """Make the folder now: an hour of embedding is a bad time to learn that it cannot be written to."""
    if folder.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
        raise OutputError(
            f"--out {folder}",
            expected="a folder: results are several files",
            hint=f"use --out DIR, or --out - > {folder}",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be made: {error.strerror}",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"--out {folder} cannot be written to",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        )
