"""Plots of an evaluation, as SVG whose bytes depend on the results alone."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from divacli.curate.curve import Curve
from divacli.curate.evaluate import Evaluation
from divacli.report.evaluation import shortened
from divacli.report.plain import plain

_STYLE: dict[Any, Any] = {
    # Names of elements are drawn at random otherwise.
    "svg.hashsalt": "divacli",
    # A user's file names may hold dollar signs.
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "x",
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
}
# Told apart also by readers who see red and green alike.
_COLOURS = ("#0072b2", "#d55e00", "#7f7f7f", "#009e73")
_NAME_WIDTH = 36


def evaluation_plot(evaluation: Evaluation) -> bytes:
    """Test error of every training set: its mean with the test set's standard error, and every run.

    Returns:
        An SVG with a panel for each learner.
    """
    table, summary = evaluation.table, evaluation.summary
    learners = summary["learner"].unique().tolist()
    names = summary["training_set"].unique().tolist()
    with _figure(len(learners), 1.1 + 0.32 * len(names)) as (figure, panels, content):
        for panel, learner in zip(panels, learners, strict=True):
            means = summary[summary["learner"] == learner].set_index("training_set").loc[names]
            places = np.arange(len(names))
            for place, name in zip(places, names, strict=True):
                here = (table["learner"] == learner) & (table["training_set"] == name)
                if here.sum() > 1:
                    runs = 100 * table.loc[here, "test_error"]
                    panel.plot(runs, np.full(len(runs), place), "|", color="0.3", markersize=9, zorder=3)
            panel.axvline(100 * means["test_error"].iloc[0], color="0.7", linewidth=1, linestyle="--")
            panel.errorbar(
                100 * means["test_error"],
                places,
                xerr=100 * means["test_error_se"],
                fmt="o",
                color=_COLOURS[0],
                markersize=5,
                capsize=2.5,
            )
            panel.set_title(learner)
            panel.set_xlabel("test error in %")
            panel.grid(True)
        panels[0].set_yticks(places, [shortened(plain(name).plain, _NAME_WIDTH) for name in names])
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        marks = ", marks: single runs" if (summary["runs"] > 1).any() else ""
        figure.suptitle(
            f"Test error by training set\n(bars: standard error, {evaluation.n_test:,} test samples{marks})"
        )
    return content.getvalue()


def curve_plot(curve: Curve) -> bytes:
    """Test error against the fraction removed or added, a line for each rule.

    Returns:
        An SVG with a panel for each learner.
    """
    summary = curve.summary
    learners = summary["learner"].unique().tolist()
    with _figure(len(learners), 3.4) as (figure, panels, content):
        for panel, learner in zip(panels, learners, strict=True):
            for colour, (rule, rows) in zip(
                _COLOURS, summary[summary["learner"] == learner].groupby("rule", sort=False), strict=False
            ):
                x, mean = 100 * rows["fraction"], 100 * rows["test_error"]
                spread = 100 * rows["test_error_sd"].fillna(0)
                panel.plot(x, mean, "o-", color=colour, markersize=3.5, linewidth=1.5, label=rule)
                if (spread > 0).any():
                    panel.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
            panel.set_title(learner)
            panel.set_xlabel(f"{curve.verb}, in %")
            panel.grid(True, axis="both")
        panels[0].set_ylabel("test error in %")
        panels[0].legend(frameon=False)
        band = "; band: spread over seeds" if summary["test_error_sd"].gt(0).any() else ""
        figure.suptitle(f"Test error by what is {curve.verb}\n({curve.n_test:,} test samples{band})")
    return content.getvalue()


@contextmanager
def _figure(n: int, height: float) -> Iterator[tuple[Figure, list[Axes], io.BytesIO]]:
    """A figure of n panels side by side with one vertical axis, written as SVG at the end."""
    content = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(1.6 + 3.4 * n, height + 0.4), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, n, sharex=True, sharey=True, squeeze=False)[0].tolist()
        yield figure, panels, content
        figure.savefig(content, format="svg", metadata={"Date": None})
