"""What a person sees of the inspection of a checkpoint in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from divacli.curate.inspect_checkpoint import CheckpointInspection
from divacli.report.terminal.plain import plain
from divacli.report.terminal.tables import SHOWN, add_numbers, add_words, cell, listing


def checkpoint_summary(result: CheckpointInspection) -> Iterator[RenderableType]:
    """What the file is, the weights in it, what it states of their training, and the command that uses it."""
    summary = result.summary
    yield plain(f"{summary['checkpoint']}: {summary['kind']}", style="bold")
    if summary["entries"]:
        yield _entries(result)
    if summary["network"]:
        yield plain(f"network: {summary['network']}")
    if summary["unknown"]:
        yield plain(f"network not known: {summary['unknown']}", style="yellow")
    for name, value in summary["settings"].items():
        yield plain(f"{name}: {value}")
    yield plain(f"used by: {summary['command']}")


def _entries(result: CheckpointInspection) -> Table:
    table = listing()
    add_words(table, "entry", 30)
    add_numbers(table, "tensors")
    add_numbers(table, "numbers")
    add_words(table, "type", 20)
    add_words(table, "prefix", 20)
    add_words(table, "last matrix", 40)
    for one in result.look.weights[:SHOWN]:
        name = (one.entry or "the file itself") + (" (average)" if one.averaged else "")
        table.add_row(
            cell(name),
            f"{one.n_tensors:,}",
            f"{one.n_numbers:,}",
            cell(one.dtypes),
            cell(one.prefix or "-"),
            cell(one.last or "-"),
        )
    if (more := len(result.look.weights) - SHOWN) > 0:
        table.add_row(f"{more:,} more", "", "", "", "", "")
    return table
