"""What a person sees of a result in the terminal: Rich renderables, no printing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.provenance import left_out
from divacli.curate.prune import Automatic, Choice, Prediction
from divacli.curate.score import ScoreResult
from divacli.curate.verify import Verification
from divacli.errors import listed
from divacli.report.plain import plain
from divacli.report.tables import PathCell, add_numbers, add_words, cell, listing
from divacli.report.words import Sentence, groups_sentences, most_confused_words, score_sentences

_NOISY = 1e-6
SHOWN = 5
"""Samples and classes named in a summary."""


def score_summary(result: ScoreResult, verification: Verification | None) -> Iterator[RenderableType]:
    """What was found, the sign, the most harmful and most useful samples, and where the harm lies."""
    summary = result.summary
    first, *others = map(_sentence, score_sentences(summary))
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


def _sentence(sentence: Sentence) -> Text:
    lead = plain(sentence.lead)
    lead.stylize("bold")
    return Text.assemble(lead, plain(sentence.rest))


def groups_line(about: Mapping[str, Any]) -> Iterator[Text]:
    """That whole groups are left out, where they are.

    Args:
        about: A summary, or as from `divacli.curate.provenance.grouping`.
    """
    yield from map(_sentence, groups_sentences(about))


def automatic_summary(auto: Automatic) -> Iterator[RenderableType]:
    """How many labels are called wrong, how sure that is, and how many outliers go."""
    expected = auto.expectation
    sure = ""
    if expected.precision is not None and expected.recall is not None:
        sure = (
            f": about {expected.precision:.0%} of these should be wrong, and they should be about "
            f"{expected.recall:.0%} of all wrong labels"
        )
    yield Text(f"labels called wrong (probability above {auto.threshold:g}): {expected.n:,}{sure}")
    yield Text(f"outliers, like nothing else in the set: {auto.n_outliers:,}")


def prune_summary(
    choice: Choice, prediction: Prediction | None, about: Mapping[str, Any]
) -> Iterator[RenderableType]:
    """What goes, and what a refit without it predicts.

    Args:
        choice: The decision.
        prediction: Before and after, where it could be computed.
        about: As for `groups_line`.
    """
    n, stay = len(choice.kept), int(choice.kept.sum())
    yield Text.assemble(
        (f"{stay:,} of {n:,} samples kept, {n - stay:,} dropped ({(n - stay) / n:.1%})", "bold")
    )
    if choice.rescued:
        yield Text("kept as the last of their class: ").append_text(plain(listed(choice.rescued)))
    if prediction is None or stay == n:
        return
    yield from groups_line(about)
    table = listing()
    add_words(table, "over")
    for number in ("loss before", "after", "error before", "after"):
        add_numbers(table, number)
    for index, name in enumerate(("all original samples", "kept", "dropped")):
        table.add_row(
            name,
            f"{prediction.before.loss[index]:.4f}",
            f"{prediction.after.loss[index]:.4f}",
            f"{prediction.before.error[index]:.1%}",
            f"{prediction.after.error[index]:.1%}",
        )
    yield Text(f"\n{left_out(about)}, exact refit at ridge {prediction.ridge:.3g}", style="bold")
    yield table
    yield Text(f"change over all original samples {prediction.change:+.4f} ± {prediction.change_se:.4f}")


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
    harmful = table["derivative"] > 0
    wrong = table["predicted_label"] != table["label"]
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
