"""Plots of what a command went through: ridges tried, samples chosen, steps of weights, training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from divacli.errors import DataError
from divacli.report.figures.drawing import INK, PLAIN_NUMBERS, SERIES, named, numeric, panels, styled


@styled()
def ridge_path(summary: Mapping[str, Any]) -> Figure:
    """The leave-one-out loss along the ridges that were tried.

    Args:
        summary: What `diva score` writes as `summary.json`.

    Raises:
        DataError: The ridge was given and not chosen.
    """
    path = summary.get("ridge_path")
    if not path:
        raise DataError(
            "no path of ridges: the ridge was given, or the scores are of an older version",
            expected="a summary.json with ridge_path",
            hint="run diva score again, without --ridge",
        )
    figure, [panel] = panels(1, 6.4, 3.2)
    panel.plot(path["ridge"], path["loss"], "o-", color=SERIES[0], markersize=3, linewidth=1.5)
    chosen = summary["ridge"]
    panel.axvline(chosen, color=SERIES[1], linewidth=1.2, label=f"chosen: {chosen:.3g}")
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(PLAIN_NUMBERS)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(True, axis="both")
    panel.legend(frameon=False)
    panel.set_xlabel("ridge")
    panel.set_ylabel("leave-one-out loss")
    named(figure, "Leave-one-out loss by ridge", f"smallest at {chosen:.3g}")
    return figure


@styled()
def choice_curve(history: pd.DataFrame) -> Figure:
    """Loss and error as samples of a pool are chosen.

    Args:
        history: `history.csv` of `diva extend` or `diva aggregate`.
    """
    history = numeric(history, "n_selected", "loss", "error")
    figure, [left, right] = panels(2, 7.2, 3.2)
    chosen = history["n_selected"].to_numpy(float)
    _line(left, chosen, history["loss"], "loss", 0)
    _line(right, chosen, 100 * history["error"], "error", 1)
    left.set_ylabel("mean squared loss")
    right.set_ylabel("error in %")
    for panel in (left, right):
        panel.set_xlabel("samples chosen")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    first, last = history.iloc[0], history.iloc[-1]
    named(
        figure,
        "Loss and error by samples chosen",
        f"{int(last['n_selected']):,} chosen: loss {first['loss']:.4f} to {last['loss']:.4f}, "
        f"error {first['error']:.1%} to {last['error']:.1%}",
    )
    return figure


@styled()
def steps_curve(reweighting: Mapping[str, Any]) -> Figure:
    """What steps of the weights did to the loss, and what left-out folds gained by those that were tried.

    Args:
        reweighting: What `diva reweight` writes as `reweight.json`.
    """
    history, trials = reweighting["history"], reweighting["trials"] or []
    figure, [left, *rest] = panels(2 if trials else 1, 7.2 if trials else 5, 3.2)
    sizes = reweighting["sizes"]
    for panel in rest:
        for colour, step in zip(SERIES, sorted({trial["step"] for trial in trials}), strict=False):
            tried = [trial for trial in trials if trial["step"] == step]
            panel.errorbar(
                [trial["size"] for trial in tried],
                [trial["gain"] for trial in tried],
                yerr=[trial["gain_error"] for trial in tried],
                fmt="o-",
                color=colour,
                markersize=3.5,
                linewidth=1.2,
                capsize=2,
                label=f"step {step}",
            )
            taken = [trial for trial in tried if step <= len(sizes) and trial["size"] == sizes[step - 1]]
            panel.plot(
                [trial["size"] for trial in taken],
                [trial["gain"] for trial in taken],
                "o",
                color=colour,
                markersize=9,
                markerfacecolor="none",
            )
        panel.axhline(0, color=INK, linewidth=1, linestyle="--")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(FixedLocator(sorted({trial["size"] for trial in trials})))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(PLAIN_NUMBERS)
        panel.grid(True, axis="both")
        panel.legend(frameon=False)
        panel.set_xlabel("step size (ring: taken)")
        panel.set_ylabel("gain of left-out folds")
    _line(left, [row["step"] for row in history], [row["loss"] for row in history], "loss", 0)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlabel("steps of the weights")
    left.set_ylabel(f"{reweighting['loss']} loss")
    named(
        figure,
        "Steps of the weights",
        f"{len(sizes)} taken; loss {history[0]['loss']:.4f} to {history[-1]['loss']:.4f}",
    )
    return figure


@styled()
def training_curve(history: pd.DataFrame) -> Figure:
    """Losses and errors as a network and the weights of its samples are trained.

    Args:
        history: `history.csv` of `diva train`.
    """
    history = numeric(history, "step", "train_loss", "kfold_loss", "loo_error", "test_error")
    figure, [left, right] = panels(2, 7.2, 3.2)
    steps = history["step"].to_numpy(float)
    _line(left, steps, history["train_loss"], "training", 0)
    _line(left, steps, history["kfold_loss"], "K-fold", 1)
    _line(right, steps, 100 * history["loo_error"], "leave-one-out", 0)
    if history["test_error"].notna().any():
        _line(right, steps, 100 * history["test_error"], "test", 1)
    left.set_ylabel("cross-entropy")
    right.set_ylabel("error in %")
    for panel in (left, right):
        panel.set_xlabel("step of the optimiser")
        panel.legend(frameon=False)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    lowest = history["kfold_loss"].min()
    named(figure, "Training", f"lowest K-fold loss {lowest:.4f}")
    return figure


def _line(panel: Axes, x: Any, y: Any, name: str, series: int) -> None:
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(y)
    panel.plot(x[there], y[there], "o-", color=SERIES[series], markersize=3, linewidth=1.5, label=name)
    panel.grid(True, axis="both")
