"""What a person sees in the terminal of where the harm comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.harm import EXACT, HarmResult, far_off
from divacli.report.terminal.plain import plain
from divacli.report.terminal.tables import SHOWN, add_words, cell, listing

_EMPTY_CELL = "(empty)"


def harm_summary(result: HarmResult) -> Iterator[RenderableType]:
    """For each column the values whose samples do most harm together, and what removing them does."""
    for by in result.columns:
        rows = result.table[result.table["by"] == by]
        heading = Text.assemble("most harmful by ", plain(by), style="bold")
        yield heading.append(f" ({min(SHOWN, len(rows))} of {len(rows):,})", style="not bold")
        if rows.empty:
            yield Text("no label is more likely wrong than right\n")
            continue
        yield _values(rows.head(SHOWN))
        for note in _notes(rows):
            yield Text(note)
        yield Text()
    yield Text(
        f"if removed: exact change of the summed loss, {result.loss:.4g} now, by a refit at ridge "
        f"{result.ridge:.3g} without all of a value's samples\n"
    )


def _values(rows: pd.DataFrame) -> Table:
    largest = float(np.nanmax(rows[["derivative", "loss_change_exact"]].abs().to_numpy()))
    # Four digits of the largest number, and of the others as many decimals.
    decimals = 3 - math.floor(math.log10(largest)) if largest else 0
    amount = f"+,.{min(max(decimals, 0), 12)}f"
    shown = listing("derivatives", "if removed", "samples", "harmful", "mislabelled")
    add_words(shown, "value")
    for row in rows.to_dict("records"):
        exact, n = row["loss_change_exact"], row["n_samples"]
        shown.add_row(
            format(row["derivative"], amount),
            "" if exact != exact else format(exact, amount),
            f"{n:,}",
            f"{row['harmful'] / n:.1%}",
            f"{row['mislabelled'] / n:.1%}",
            cell(row["value"] or _EMPTY_CELL),
        )
    return shown


def _notes(rows: pd.DataFrame) -> Iterator[str]:
    """Which values of a column have no exact change, and where the sum is no guide to it."""
    tried = min(EXACT, len(rows))
    known = int(rows["loss_change_exact"].notna().sum())
    if tried < len(rows):
        yield f"removed were the {tried} values with the largest sums, of either sign"
    if known < tried:
        yield f"without {tried - known:,} of them nothing is left to tell apart: no such change"
    far = int(far_off(rows).sum())
    if far:
        yield (
            f"of {far:,} of {known:,} the sum is no guide: removing so many samples moves the fit further "
            "than derivatives see"
        )
