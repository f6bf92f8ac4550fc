"""What a person sees of a result in the terminal: Rich renderables, no printing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.provenance import left_out
from divacli.curate.prune import Choice, Prediction
from divacli.curate.score import ScoreResult
from divacli.curate.verify import Verification
from divacli.errors import listed
from divacli.report.plain import plain

_NOISY = 1e-6
SHOWN = 5
"""Samples and classes named in a summary."""


def score_summary(result: ScoreResult, verification: Verification | None) -> Iterator[RenderableType]:
    """What was found, the sign, the most harmful and most useful samples, and where the harm lies."""
    summary = result.summary
    n = summary["n_samples"]
    harmful = summary["n_harmful"]
    failed = f", {summary['n_failed']:,} left out (see failed)" if summary["n_failed"] else ""
    yield Text(
        f"{n:,} samples{failed}, {summary['n_classes']:,} classes, {summary['n_features']:,} features each; "
        f"{summary['n_embedded']:,} embedded now",
    )
    yield from groups_line(summary)
    yield Text(
        f"{left_out(summary)} loss {summary['loo_loss']:.4f}, error {summary['loo_error']:.1%} "
        f"(ridge {summary['ridge']:.3g}; derivatives at ridge {summary['ranking_ridge']:.3g})"
    )
    if "validation_loss" in summary:
        yield Text(
            f"validation loss {summary['validation_loss']:.4f}, error {summary['validation_error']:.1%} "
            f"over {summary['n_validation']:,} samples: derivatives are of their loss"
        )
    yield Text.assemble(
        (f"{harmful:,} samples ({harmful / n:.1%}) are harmful", "bold"),
        ": their derivative is positive, so more of them raises the loss and less lowers it",
    )
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


def groups_line(about: Mapping[str, Any]) -> Iterator[Text]:
    """That whole groups are left out, where they are.

    Args:
        about: A summary, or as from `divacli.curate.provenance.grouping`.
    """
    if about["group"] is not None:
        yield Text(f"leave-group-out: {about['n_groups']:,} groups of ").append_text(plain(about["group"]))


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
    table = Table(box=None, pad_edge=False)
    for name in ("over", "loss before", "after", "error before", "after"):
        table.add_column(name, justify="left" if name == "over" else "right")
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


def _samples(rows: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("derivative", justify="right")
    table.add_column("loo loss", justify="right")
    table.add_column("label", overflow="ellipsis", no_wrap=True, max_width=16)
    table.add_column("predicted", overflow="ellipsis", no_wrap=True, max_width=16)
    table.add_column("path", overflow="ellipsis", no_wrap=True)
    for row in rows.itertuples():
        path = str(row.path)
        table.add_row(
            _signed(float(row.derivative)),  # type: ignore[arg-type]
            f"{row.loo_loss:.3f}",
            plain(str(row.label)),
            plain(str(row.predicted_label)),
            # The end of a path says more than its beginning.
            plain(path if len(path) <= 32 else "…" + path[-31:]),
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
    shown = Table(box=None, pad_edge=False)
    for name in ("share", "harmful", "samples", "loo error"):
        shown.add_column(name, justify="right")
    shown.add_column("label", overflow="ellipsis", no_wrap=True)
    for row in classes.itertuples():
        shown.add_row(
            f"{row.share:.1%}",
            f"{row.harmful:,}",
            f"{row.samples:,}",
            f"{row.wrong:.1%}",
            plain(str(row.Index)),
        )
    return shown
