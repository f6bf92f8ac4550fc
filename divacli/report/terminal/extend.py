"""What a person sees of a choice from a pool in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.aggregate import AggregateResult
from divacli.curate.extend import ExtendResult
from divacli.manifest.columns import MODALITY, REASON
from divacli.report.terminal.outlook import Deed, candidates, outlook_sentence, these
from divacli.report.terminal.plain import plain
from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import SHOWN, add_words, cell, listing

_STATES = 8
"""Refits shown of a long history."""


def extend_summary(result: ExtendResult) -> Iterator[RenderableType]:
    """How much was chosen and why it ended, the loss after each batch, and why others stayed behind."""
    summary = result.summary
    yield from groups_line(summary)
    yield Text.assemble(
        (f"{summary['n_selected']:,} of {summary['n_pool']:,} pool samples are chosen", "bold"),
        f" for {summary['n_core']:,} core samples, judged by the {summary['judged_by']}",
    )
    if summary["labelled"]:
        yield Text(f"wrong labels in the pool, as estimated: {summary['pool_noise']:.0%}")
    else:
        yield Text("the pool has no labels: ranked by the expected derivative under the predicted classes")
    yield Text(f"chosen by {summary['rule']}: {summary['why']}")
    yield Text(
        f"loss {summary['loss']['before']:.4f} -> {summary['loss']['after']:.4f}, "
        f"error {summary['error']['before']:.1%} -> {summary['error']['after']:.1%} "
        f"(the choice was fitted to these); {summary['stopped']}\n"
    )
    yield _history(result)
    if result.outlook is not None:
        n = summary["n_selected"]
        deed = Deed(f"adding {these(n)}", "adding as many at random", "keep the core", "adding", advise=True)
        yield Text()
        yield from candidates(result.outlook)
        yield Text(outlook_sentence(result.outlook, deed, written=True) + ".", style="bold")
    counts = result.remaining[REASON].value_counts()
    if len(counts):
        yield Text("\nwhy others were not chosen", style="bold")
        reasons = listing("")
        reasons.show_header = False
        reasons.add_column()
        for reason, count in counts.head(SHOWN).items():
            reasons.add_row(f"{count:,}", plain(str(reason)))
        yield reasons


def aggregate_summary(result: AggregateResult) -> Iterator[RenderableType]:
    """As of an extension, with how many of each modality were chosen and what they weigh."""
    yield from extend_summary(result.choice)
    yield Text("\nmodalities", style="bold")
    shown = listing("chosen", "of", "weight")
    add_words(shown, MODALITY)
    for name, part in result.summary["modalities"].items():
        shown.add_row(
            f"{part['n_selected']:,}", f"{part['n_pool']:,}", f"{part['weight']:g}", cell(str(name))
        )
    yield shown


def _history(result: ExtendResult) -> Table:
    history = result.history
    if len(history) > _STATES:
        spread = [round(i * (len(history) - 1) / (_STATES - 1)) for i in range(_STATES)]
        history = history.iloc[spread]
    shown = listing("batch", "chosen", "loss", "error", "ridge")
    for row in history.itertuples():
        shown.add_row(
            f"{row.batch}", f"{row.n_selected:,}", f"{row.loss:.4f}", f"{row.error:.1%}", f"{row.ridge:.3g}"
        )
    return shown
