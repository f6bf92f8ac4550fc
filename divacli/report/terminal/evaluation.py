"""What a person sees of an evaluation in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from divacli.evaluation.command import EvaluateResult
from divacli.evaluation.curve import Curve
from divacli.evaluation.evaluate import Evaluation
from divacli.evaluation.verdict_words import parts, verdict_sentences
from divacli.report.terminal.plain import plain, shortened
from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import PathCell, add_numbers, add_words, listing

_NAME_WIDTH = 18
_RIVAL_WIDTH = 26


def evaluate_summary(result: EvaluateResult) -> Iterator[RenderableType]:
    """The groups, the errors of manifests and rivals with who won, and the curve."""
    yield from groups_line(result.about)
    if result.evaluation is not None:
        yield from evaluation_summary(result.evaluation)
        yield from winners(result.evaluation)
    if result.curve is not None:
        yield from curve_summary(result.curve)


def evaluation_summary(evaluation: Evaluation) -> Iterator[RenderableType]:
    """One table for each learner: test errors in percent, a line for each training set."""
    summary = evaluation.summary
    yield Text(
        f"errors in % on {evaluation.n_test:,} test samples, ± their standard error; spread over seeds"
    )
    recovered = summary["recovered"].notna().any()
    if recovered:
        yield Text("gap: share of the way from everything's error to the oracle's")
    for learner, rows in summary.groupby("learner", sort=False):
        table = listing(of_names=True)
        add_words(table, "training set", _NAME_WIDTH)
        columns = ["samples", "test error", "spread", "by\nclass", "difference"]
        for name in [*columns, *(["gap"] if recovered else [])]:
            add_numbers(table, name)
        for number, row in enumerate(rows.to_dict("records")):
            cells = [
                f"{row['n_train']:,}",
                f"{_percent(row['test_error'])} ± {_percent(row['test_error_se'])}",
                "" if pd.isna(row["test_error_sd"]) else f"± {_percent(row['test_error_sd'])}",
                _percent(row["class_error"]),
                f"{100 * row['difference']:+.1f} ± {_percent(row['difference_se'])}" if number else "",
            ]
            if recovered:
                cells.append("" if pd.isna(row["recovered"]) else f"{row['recovered']:.0%}")
            table.add_row(PathCell(row["training_set"]), *cells)
        yield Text()
        yield Text(str(learner), style="bold")
        yield table


def winners(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Who won, by learner: a line for each part of the sentence."""
    for learner in verdict_sentences(evaluation):
        first, *others = parts(evaluation, learner, lambda name: shortened(plain(name).plain, _RIVAL_WIDTH))
        yield Text()
        yield Text("\n  ".join([first, *others]))


def curve_summary(curve: Curve) -> Iterator[RenderableType]:
    """One table for each learner: a line for each fraction, a column for each rule."""
    for learner, rows in curve.summary.groupby("learner", sort=False):
        rules = rows["rule"].unique().tolist()
        table = listing(curve.verb, *rules)
        for fraction, here in rows.groupby("fraction"):
            cells = {
                row["rule"]: _percent(row["test_error"])
                + ("" if pd.isna(row["test_error_sd"]) else f" ± {_percent(row['test_error_sd'])}")
                for row in here.to_dict("records")
            }
            table.add_row(f"{fraction:.0%}", *(cells.get(rule, "") for rule in rules))
        yield Text()
        yield Text.assemble(
            (str(learner), "bold"), f": test error in %, by fraction {curve.verb} and how chosen"
        )
        yield table


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
