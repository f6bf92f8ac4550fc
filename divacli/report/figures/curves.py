"""Plots of an evaluation: test error by training set, and by the fraction removed or added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from divacli.report.figures.drawing import INK, SERIES, named, panels, rendered, styled
from divacli.report.terminal.plain import plain, shortened

if TYPE_CHECKING:
    from divacli.evaluation.command import EvaluateResult
    from divacli.evaluation.curve import Curve
    from divacli.evaluation.evaluate import Evaluation
    from divacli.results.result import Target

_NAME_WIDTH = 36


def draw_evaluation(result: EvaluateResult, target: Target) -> None:
    """Draw what there is of an evaluation beside its tables, where these go into a folder."""
    if target.folder is None:
        return
    if result.evaluation is not None:
        target.bytes("evaluation.svg", evaluation_plot(result.evaluation))
    if result.curve is not None:
        target.bytes("curve.svg", curve_plot(result.curve))


def evaluation_plot(evaluation: Evaluation) -> bytes:
    """`evaluation_figure` as SVG."""
    return rendered(evaluation_figure(evaluation.table, evaluation.summary, evaluation.n_test), "svg")


def curve_plot(curve: Curve) -> bytes:
    """`curve_figure` as SVG."""
    return rendered(curve_figure(curve.verb, curve.summary, curve.n_test), "svg")


@styled()
def evaluation_figure(table: pd.DataFrame, summary: pd.DataFrame, n_test: int) -> Figure:
    """Test error of every training set: its mean with the test set's standard error, and every run.

    Args:
        table: As of `divacli.evaluation.evaluate.Evaluation`, and so are the others.
        summary: Means over runs.
        n_test: Samples of the test set.

    Returns:
        A panel for each learner.
    """
    learners = summary["learner"].unique().tolist()
    names = summary["training_set"].unique().tolist()
    places = np.arange(len(names))
    figure, axes = panels(len(learners), 1.6 + 3.4 * len(learners), 1.5 + 0.32 * len(names), sharey=True)
    for panel, learner in zip(axes, learners, strict=True):
        means = summary[summary["learner"] == learner].set_index("training_set").loc[names]
        for place, name in zip(places, names, strict=True):
            here = (table["learner"] == learner) & (table["training_set"] == name)
            if here.sum() > 1:
                runs = 100 * table.loc[here, "test_error"]
                panel.plot(runs, np.full(len(runs), place), "|", color=INK, markersize=9, zorder=3)
        panel.axvline(100 * means["test_error"].iloc[0], color=SERIES[2], linewidth=1, linestyle="--")
        panel.errorbar(
            100 * means["test_error"],
            places,
            xerr=100 * means["test_error_se"],
            fmt="o",
            color=SERIES[0],
            markersize=5,
            capsize=2.5,
        )
        panel.set_title(learner)
        panel.set_xlabel("test error in %")
        panel.grid(True)
    axes[0].set_yticks(places, [shortened(plain(name).plain, _NAME_WIDTH) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    marks = ", marks: single runs" if (summary["runs"] > 1).any() else ""
    note = f"(bars: standard error, {n_test:,} test samples{marks})"
    named(figure, f"Test error by training set\n{note}")
    return figure


@styled()
def curve_figure(verb: str, summary: pd.DataFrame, n_test: int) -> Figure:
    """Test error against the fraction removed or added, a line for each rule.

    Args:
        verb: As of `divacli.evaluation.curve.Curve`, and so are the others.
        summary: Means over runs.
        n_test: Samples of the test set.

    Returns:
        A panel for each learner.
    """
    learners = summary["learner"].unique().tolist()
    figure, axes = panels(len(learners), 1.6 + 3.4 * len(learners), 3.8, sharey=True)
    for panel, learner in zip(axes, learners, strict=True):
        for colour, (rule, rows) in zip(
            SERIES, summary[summary["learner"] == learner].groupby("rule", sort=False), strict=False
        ):
            x, mean = 100 * rows["fraction"], 100 * rows["test_error"]
            spread = 100 * rows["test_error_sd"].fillna(0)
            panel.plot(x, mean, "o-", color=colour, markersize=3.5, linewidth=1.5, label=rule)
            if (spread > 0).any():
                panel.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        panel.set_title(learner)
        panel.set_xlabel(f"{verb}, in %")
        panel.grid(True, axis="both")
    axes[0].set_ylabel("test error in %")
    axes[0].legend(frameon=False)
    band = "; band: spread over seeds" if summary["test_error_sd"].gt(0).any() else ""
    named(figure, f"Test error by what is {verb}\n({n_test:,} test samples{band})")
    return figure
