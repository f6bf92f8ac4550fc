"""What a person sees of an inspection in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.inspect import Inspection, Refusal
from divacli.errors import Again, listed
from divacli.images.failures import said_of
from divacli.images.survey import Survey
from divacli.report.terminal.plain import plain
from divacli.report.terminal.tables import SHOWN, add_numbers, add_words, cell, listing


def inspect_summary(result: Inspection) -> Iterator[RenderableType]:
    """What DATA was taken for, its classes and images, what is left out and odd, and what is refused."""
    summary = result.summary
    yield plain(summary["understood"], style="bold")
    columns = {role: column for role, column in summary["columns"].items() if column}
    yield plain("; ".join(f"{role}: {column}" for role, column in columns.items()))
    if summary["other_columns"]:
        yield plain(f"other columns: {listed(summary['other_columns'], limit=8)}")
    if result.manifest.labelled:
        yield _classes(result.classes)
    if result.images is not None:
        yield from _images(result.images, result.range)
    if summary["left_out"]:
        told = [f"{one['n']:,} {one['suffix']} ({one['reason']})" for one in summary["left_out"]]
        yield plain(f"left out: {listed(told)}")
    for sentence in summary["odd"]:
        yield plain(f"odd: {sentence}", style="yellow")
    for refusal in result.refusals:
        yield from _refused(refusal)


def _refused(refusal: Refusal) -> Iterator[RenderableType]:
    yield plain(f"refused without options: {refusal.got}", style="red")
    if refusal.data:
        typed = Again(refusal.data, refusal.data, refusal.options).typed
        yield plain(f"read with: {typed.removeprefix('give ')}")
    else:
        yield plain(f"expected: {refusal.expected}")


def _classes(classes: pd.DataFrame) -> Table:
    """The largest classes, and a row for the others together."""
    by_size = classes.sort_values("samples", ascending=False, kind="stable")
    numbers = [str(name) for name in classes if name != "label"]
    table = listing()
    add_words(table, "class", 30)
    for name in numbers:
        add_numbers(table, name)
    for row in by_size.head(SHOWN).to_dict("records"):
        table.add_row(cell(row["label"]), *(f"{row[name]:,}" for name in numbers))
    rest = by_size.iloc[SHOWN:]
    if len(rest):
        table.add_row(f"{len(rest):,} more", *(f"{int(rest[name].sum()):,}" for name in numbers))
    return table


def _images(found: Survey, pixels: str) -> Iterator[RenderableType]:
    looked = f"of {found.n_files:,} images {found.n_looked_at:,} were looked at: "
    yield plain(looked + ", ".join([_counted(found.formats), _counted(found.modes)]))
    if found.widths is not None and found.heights is not None:
        widths, heights = map(_spread, (found.widths, found.heights))
        yield Text(f"widths {widths}; heights {heights}")
    if found.n_turned:
        yield Text(f"{found.n_turned:,} are turned by their EXIF data")
    if pixels:
        yield plain(pixels)
    if found.unusable:
        yield plain(f"{found.n_unusable:,} cannot be opened: {said_of(found.unusable)}", style="yellow")


def _spread(sizes: tuple[int, int, int]) -> str:
    low, middle, high = sizes
    return f"{low:,} to {high:,} pixels, the middle one {middle:,}"


def _counted(counts: Mapping[str, int]) -> str:
    return listed([f"{n:,} {name}" for name, n in counts.items()])
