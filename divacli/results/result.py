"""The shape that the results of all commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from divacli.results.write import ResultFiles


class Result(Protocol):
    """What a command found: the terminal, the page, the files and Python all read this one object."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """What its JSON file holds."""

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""

    def write(self, target: ResultFiles) -> None:
        """Write all tables and the summary."""
