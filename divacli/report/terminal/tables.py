"""Tables for a terminal of 60 columns or more: text gives way where it is narrow, numbers never do."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from divacli.report.terminal.plain import plain

SHOWN = 5
"""Samples and classes named in a summary."""


def listing(*numbers: str, of_names: bool = False) -> Table:
    """A table without lines.

    Args:
        numbers: Names of its first columns, which hold numbers.
        of_names: Whether its first column will hold names, which may look like messages: it is indented then.
    """
    table = Table(box=None, pad_edge=of_names)
    for name in numbers:
        add_numbers(table, name)
    return table


def add_numbers(table: Table, name: str) -> None:
    """Add a column that keeps its width; the name, which is never a user's, may have several lines."""
    table.add_column(Text(name), justify="right", no_wrap=True)


def add_words(table: Table, name: str, most: int | None = None) -> None:
    """Add a column of `cell`s, that is as narrow as it has to be and never wider than `most`."""
    table.add_column(name, overflow="ellipsis", max_width=most)


@dataclass(frozen=True)
class PathCell:
    """A path, without its beginning where the column is narrow: its end says more."""

    path: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """At most the whole path."""
        return Measurement(1, max(1, cell_len(plain(self.path).plain))).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line."""
        text = plain(self.path).plain
        if cell_len(text) > options.max_width:
            # From the other end, for characters may be two columns wide.
            text = "…" + set_cell_size(text[::-1], options.max_width - 1)[::-1]
        yield Text(text, no_wrap=True)


def cell(text: str) -> Text:
    """A user's text, on one line however narrow the column is."""
    shown = plain(text)
    shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown
