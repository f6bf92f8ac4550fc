"""Show scores in the terminal: Rich renderables, no printing."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.sample_scores import ScoreResult
from divacli.curate.score import Scoring
from divacli.curate.verify import Verification
from divacli.manifest.columns import DERIVATIVE, PREDICTED_LABEL
from divacli.report.terminal.harm import harm_summary
from divacli.report.terminal.plain import plain
from divacli.report.terminal.sentences import sentence_line
from divacli.report.terminal.tables import SHOWN, PathCell, add_words, cell, listing
from divacli.report.words import most_confused_words, score_sentences

_NOISY = 1e-6


def scoring_summary(scoring: Scoring) -> Iterator[RenderableType]:
    """The scores, then the sums of derivatives where they were asked for."""
    yield from score_summary(scoring.result, scoring.verification)
    if scoring.harm is not None:
        yield from harm_summary(scoring.harm)


def score_summary(result: ScoreResult, verification: Verification | None) -> Iterator[RenderableType]:
    """What was found, the sign, the most harmful and most useful samples, and where the harm lies."""
    summary = result.summary
    first, *others = map(sentence_line, score_sentences(summary))
    yield first.append(f"; {summary['n_embedded']:,} embedded now")
    yield from others[:-1]
    yield others[-1].append(". To drop or correct them: diva prune --keep auto, diva relabel")
    if summary["confusions"]:
        yield Text("most frequent, given → suggested: ").append_text(plain(most_confused_words(summary)))
    yield Text("\nmost harmful", style="bold red")
    yield _samples(result.table.head(SHOWN))
    yield Text("\nmost useful", style="bold green")
    yield _samples(result.table.iloc[::-1].head(SHOWN))
    yield Text("\nclasses with the largest share of harmful samples", style="bold")
    yield _classes(result.table)
    yield Text()
    if verification is not None:
        yield Text(
            f"verified on {verification.n} samples against refits: largest relative difference "
            f"{verification.prediction:.1e} of leave-one-out predictions, "
            f"{verification.derivative:.1e} of derivatives"
        )
        if verification.noise > _NOISY:
            yield Text(
                f"the refits' own derivatives change by {verification.noise:.1e} with the step of their "
                "differences: this ridge nearly interpolates, and they cannot tell more than that"
            )


def _samples(rows: pd.DataFrame) -> Table:
    table = listing("derivative", "loo loss")
    for name in ("label", "predicted"):
        add_words(table, name, 16)
    add_words(table, "path")
    for row in rows.itertuples():
        table.add_row(
            _signed(float(row.derivative)),  # type: ignore[arg-type]
            f"{row.loo_loss:.3f}",
            cell(str(row.label)),
            cell(str(row.predicted_label)),
            PathCell(str(row.path)),
        )
    return table


def _signed(derivative: float) -> str:
    return f"{derivative:+.4f}" if abs(derivative) >= 0.01 else f"{derivative:+.2e}"


def _classes(table: pd.DataFrame) -> Table:
    harmful = table[DERIVATIVE] > 0
    wrong = table[PREDICTED_LABEL] != table["label"]
    classes = (
        pd.DataFrame({"label": table["label"], "harmful": harmful, "wrong": wrong})
        .groupby("label")
        .agg(samples=("harmful", "size"), harmful=("harmful", "sum"), wrong=("wrong", "mean"))
    )
    classes["share"] = classes["harmful"] / classes["samples"]
    classes = classes.sort_values(["share", "harmful"], ascending=False, kind="stable").head(SHOWN)
    shown = listing("share", "harmful", "samples", "loo error")
    add_words(shown, "label")
    for row in classes.itertuples():
        shown.add_row(
            f"{row.share:.1%}",
            f"{row.harmful:,}",
            f"{row.samples:,}",
            f"{row.wrong:.1%}",
            cell(str(row.Index)),
        )
    return shown
