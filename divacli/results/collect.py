"""The tables of a result in memory, as they would be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divacli.manifest import Format, relocate
from divacli.results.result import Result

if TYPE_CHECKING:
    import pandas as pd


class Collected:
    """What a result hands over when it is written, without files.

    Args:
        result: Of a command.

    Attributes:
        tables: By name; relative paths start from the current folder.
        main: Name of the one that goes to standard output.
        summaries: What JSON files would hold, by their names without suffix.
    """

    folder: None = None
    writes = True

    def __init__(self, result: Result) -> None:
        self.tables: dict[str, pd.DataFrame] = {}
        self.main = ""
        self.summaries: dict[str, dict[str, Any]] = {}
        result.write(self)

    @property
    def base(self) -> Path:
        """The current folder."""
        return Path.cwd()

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
        """Keep a table of samples."""
        self.tables[name] = relocate(table, origin, self.base)
        if main:
            self.main = name

    def records(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table that is not one of samples."""
        self.tables[name] = table.copy()

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Keep what the JSON file would hold."""
        self.summaries[name.removesuffix(".json")] = json.loads(json.dumps(content, allow_nan=False))

    def bytes(self, name: str, content: bytes) -> None:
        """Leave out what is neither table nor summary."""

    def text(self, name: str, content: str) -> None:
        """Leave it out as well."""
