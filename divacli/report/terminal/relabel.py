"""What a person sees of corrected labels in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.relabel import ACTIONS, DROPPING, Relabelling
from divacli.curate.wrong_labels import BALANCED, LIKELY
from divacli.manifest.columns import SUGGESTED_LABEL
from divacli.report.terminal.outlook import Deed, outlook_sentence
from divacli.report.terminal.plain import plain
from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import SHOWN, PathCell, add_numbers, add_words, cell, listing

_WHY = {
    LIKELY: ": more likely wrong than right",
    BALANCED: ": the best F1 that the model expects, for a review",
}
"""What is added of a decision that finds its threshold."""


def relabel_summary(result: Relabelling) -> Iterator[RenderableType]:
    """How many labels are corrected, how sure that is, which are confused, and what that should do."""
    summary, about = result.decision.summary, result.scores.about
    n, called = summary["n_samples"], summary["mislabelled"]
    yield from groups_line(about)
    above = f"with a probability above {summary['threshold']:g}"
    if called["n"] == 0:
        reason = above if summary["n_above_threshold"] == 0 else "within the budget of 0"
        yield Text(f"of {n:,} labels none is called wrong {reason}: nothing is corrected", style="bold")
        yield Text(f"expected number of wrong labels: {_count(summary['noise_rate'], n)}")
        return
    why = _WHY.get(summary["decide"], "")
    yield Text(f"{called['n']:,} of {n:,} labels are called wrong, {above}{why}", style="bold")
    yield _actions(summary, written=result.written)
    more = summary["n_above_threshold"] - called["n"]
    if more:
        yield Text(f"the budget leaves out {more:,} that are less probable")
    yield Text(
        f"by the label-noise model about {called['expected_precision']:.0%} of these {called['n']:,} are "
        f"wrong (precision); they are about {called['expected_recall']:.0%} of all wrong labels (recall)"
    )
    yield Text(
        f"expected number of wrong labels: {_count(summary['noise_rate'], n)} before, "
        f"{_count(summary['noise_rate_after'], n)} "
        + ("after the corrections" if result.written else "if they were corrected")
    )
    if summary["corrections"]:
        pairs = [f"{pair['given']} → {pair['suggested']} ({pair['n']:,})" for pair in summary["corrections"]]
        yield Text("most frequent, given → suggested: ").append_text(plain(", ".join(pairs[:SHOWN])))
    yield Text("\nmost probable errors", style="bold red")
    yield _changes(result.changes.head(SHOWN))
    yield Text()
    if result.outlook is not None:
        yield Text(relabel_verdict(result), style="bold")


def relabel_verdict(result: Relabelling) -> str:
    """The sentences that a person acts on; "" without a forecast."""
    outlook, versus = result.outlook, result.versus_dropping
    if outlook is None or versus is None:
        return ""
    n = result.n_chosen
    deed = Deed(
        f"correcting {'this label' if n == 1 else f'these {n:,} labels'}",
        "correcting as many at random",
        "the labels stay",
        "correcting",
        f"dropping them: {100 * outlook.forecast.error(DROPPING):.1f}",
    )
    said = outlook_sentence(outlook, deed, written=result.written) + "."
    if abs(versus.mean) <= versus.se:
        return f"{said} Between correcting and dropping there is no more than chance."
    if versus.mean < 0:
        return f"{said} By this forecast correcting is better than dropping."
    return f"{said} By this forecast dropping is better: diva prune --keep auto."


def _count(share: float, n: int) -> str:
    return f"{share * n:,.1f} ({share:.1%})"


def _actions(summary: Mapping[str, Any], *, written: bool) -> Table:
    right = summary["expected_right"]
    shown = Table.grid(padding=(0, 1))
    shown.add_column(justify="right")
    shown.add_column()
    for name, meaning in (
        ("corrected", "" if right is None else f": about {right:.0%} of the corrections are right"),
        ("unclear", ": no single class is more probable than the given label, which stays"),
        ("outliers", ", like nothing else in the set: the label stays; diva prune --keep auto drops them"),
    ):
        if summary[f"n_{name}"]:
            called = name if written or name != ACTIONS[0] else "not corrected, though called so"
            shown.add_row(f"  {summary[f'n_{name}']:,}", f"{called}{meaning}")
    return shown


def _changes(rows: pd.DataFrame) -> Table:
    shown = listing("wrong")
    for name in ("label", "suggested"):
        add_words(shown, name, 12)
    add_numbers(shown, "with")
    shown.add_column("action", no_wrap=True)
    add_words(shown, "path")
    for row in rows.to_dict("records"):
        shown.add_row(
            f"{row['mislabel_probability']:.1%}",
            cell(row["label"]),
            cell(row[SUGGESTED_LABEL]),
            f"{row['suggested_probability']:.1%}",
            row["action"],
            PathCell(row["path"]),
        )
    return shown
