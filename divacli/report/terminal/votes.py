"""What a person sees of a consensus in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.votes import Consensus
from divacli.report.terminal.plain import plain
from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import SHOWN, PathCell, add_numbers, add_words, cell, listing


def votes_summary(result: Consensus) -> Iterator[RenderableType]:
    """How sure the consensus is, who is least accurate, and what to look at once more."""
    summary = result.summary
    n = summary["n_images"]
    yield from groups_line(summary)
    yield Text(
        f"{summary['n_votes']:,} votes for {n:,} images"
        + (f" by {summary['n_annotators']:,} annotators" if summary["annotator"] else "")
        + f": about {summary['vote_accuracy']:.1%} of the votes are right",
        style="bold",
    )
    yield Text(
        f"expected number of wrong labels: {_count(summary['expected_wrong_majority'], n)} by the majority "
        f"of votes, {_count(summary['expected_wrong'], n)} by votes and features together"
    )
    yield Text(
        f"without a single majority: {summary['n_ties']:,}; of the others another label than that of most "
        f"votes: {summary['n_changed']:,}"
    )
    if summary["confusions"]:
        pairs = [f"{one['label']} → {one['vote']} ({one['expected']:,.0f})" for one in summary["confusions"]]
        yield Text("most frequent mistakes, true → vote: ").append_text(plain(", ".join(pairs[:SHOWN])))
    if summary["annotator"]:
        yield Text("\nleast accurate annotators", style="bold red")
        yield _annotators(result.annotators.head(SHOWN))
    if len(result.again):
        yield Text("\nto look at once more", style="bold")
        yield _again(result.again.head(SHOWN))
        yield Text(
            f"one more vote for each of these {summary['n_again']:,} images in again should correct about "
            f"{summary['expected_gain']:,.1f} labels"
        )


def _count(expected: float, n: int) -> str:
    return f"{expected:,.1f} ({expected / n:.1%})"


def _annotators(rows: pd.DataFrame) -> Table:
    shown = listing("right", "95 %", "votes")
    add_words(shown, "annotator", 20)
    add_words(shown, "most frequent mistake, true → vote")
    for row in rows.to_dict("records"):
        shown.add_row(
            f"{row['accuracy']:.1%}",
            f"{row['accuracy_low']:.0%} to {row['accuracy_high']:.0%}",
            f"{row['n_votes']:,}",
            cell(row["annotator"] or "(no name)"),
            cell(f"{row['confused_label']} → {row['confused_vote']} ({row['confused_votes']:.1f})"),
        )
    return shown


def _again(rows: pd.DataFrame) -> Table:
    shown = listing("sure")
    for name in ("label", "second"):
        add_words(shown, name, 12)
    add_numbers(shown, "votes")
    add_words(shown, "path")
    for row in rows.to_dict("records"):
        shown.add_row(
            f"{row['consensus_probability']:.1%}",
            cell(row["label"]),
            cell(row["second_label"]),
            f"{row['n_votes']:,}",
            PathCell(row["path"]),
        )
    return shown
