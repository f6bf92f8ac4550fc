"""Two interfaces: the result of a command, and the target that takes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from divacli.manifest import Format


class Target(Protocol):
    """Takes a result apart: into files (`ResultFiles`), or into memory (`Collected`)."""

    @property
    def base(self) -> Path:
        """The folder that relative paths in its tables start from."""

    @property
    def folder(self) -> Path | None:
        """Where files go; None where none are made."""

    @property
    def writes(self) -> bool:
        """Whether anything is written at all."""

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
        """Take a table of samples; as of `ResultFiles`."""

    def records(self, name: str, table: pd.DataFrame) -> None:
        """Take a table that is not one of samples."""

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Take an object, by the name of its file."""

    def bytes(self, name: str, content: bytes) -> None:
        """Take another file."""

    def text(self, name: str, content: str) -> None:
        """Take the main result where that is a text."""


class Result(Protocol):
    """What a command found: the terminal, the page, the files and Python all read this one object."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """What its JSON file holds."""

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""

    def write(self, target: Target) -> None:
        """Hand over all tables, the summary and other files."""
