"""The files of a result: written whole or not at all, into a folder or to standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from divacli.manifest import Format


class ResultFiles:
    """Where the tables of a result go: files in a folder, or the main table to standard output.

    Args:
        folder: The folder; None for standard output.
        format: Of the tables.
        writes: Whether anything is written: of several processes that share the work the first one does.
    """

    def __init__(self, folder: Path | None, format: Format, *, writes: bool = True) -> None:
        self.folder = folder
        self.written: list[str] = []
        self._format: Format = format
        self._writes = writes

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
        format: Format | None = None,
    ) -> None:
        """Write a table, its paths rewritten so that it can be read back from where it lies.

        Args:
            name: Of the file, without suffix.
            table: With a column path.
            origin: Absolute folder that its relative paths start from.
            main: The one table that goes to standard output where there is no folder.
            format: Another one than that of the others.
        """
        from divacli.manifest import relocate, write_table

        if not self._writes or (self.folder is None and not main):
            return
        moved = relocate(table, origin, self.base)
        written = format or self._format
        target = None if self.folder is None else self.folder / f"{name}.{written}"
        write_table(moved, target, written)
        if target is not None:
            self.written.append(target.name)

    def records(self, name: str, table: pd.DataFrame) -> None:
        """Write a table that is not one of samples, in a folder only."""
        from divacli.manifest import write_table

        if self.folder is not None and self._writes:
            target = self.folder / f"{name}.{self._format}"
            write_table(table, target, self._format)
            self.written.append(target.name)

    def json(self, name: str, content: dict[str, object]) -> None:
        """Write a JSON file, in a folder only."""
        from divacli.manifest import write_text

        if self.folder is not None and self._writes:
            write_text(self.folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")
            self.written.append(name)

    def bytes(self, name: str, content: bytes) -> None:
        """Write a file of no text, in a folder only."""
        from divacli.manifest import write_bytes

        if self.folder is not None and self._writes:
            write_bytes(self.folder / name, content)
            self.written.append(name)

    def text(self, name: str, content: str) -> None:
        """Write a command's main result where it is text and no table."""
        from divacli.manifest import write_text

        if not self._writes:
            return
        if self.folder is None:
            sys.stdout.write(content)
            sys.stdout.flush()
        else:
            write_text(self.folder / name, content)
            self.written.append(name)
