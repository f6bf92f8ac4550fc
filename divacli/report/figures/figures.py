"""Plots of results: figures made of the tables and summaries that the commands write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from divacli.curate.suspects import mislabelled
from divacli.errors import DataError
from divacli.report.figures.drawing import INK, SERIES, label_text, named, page_svg, panels, rendered, styled

__all__ = [
    "choice_curve",
    "class_bars",
    "confusions",
    "derivative_against_loss",
    "derivative_histogram",
    "group_bars",
    "page_svg",
    "rendered",
    "ridge_path",
    "steps_curve",
    "training_curve",
]

MOST_BARS = 30
"""Classes or groups in one plot, at the most."""

MOST_CONFUSED = 20
"""Classes of a table of confusions, at the most."""

_BINS = 60
_CELLS = (36, 24)
_MOST_POINTS = 500
_LEVELS = 6
_FAINTEST, _STRONGEST = 0.12, 0.6
_LABEL_WIDTH = 28
_TICK_ROOM = 0.08
_PLAIN_NUMBERS = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))


@styled()
def derivative_histogram(scores: pd.DataFrame, flipped: np.ndarray | None = None) -> Figure:
    """How the derivatives are distributed: harmful samples are on the right.

    The axis is linear among the smaller half of them, and logarithmic in the tails.

    Args:
        scores: (n) rows with `derivative`.
        flipped: (n,) bool, samples whose label is known to be wrong.
    """
    values = _finite(scores, "derivative")
    wrong = _known(flipped, scores)[np.isfinite(scores["derivative"].to_numpy(float))]
    figure, [panel] = panels(1, 6.4, 3.4)
    width = _linear_width(values)
    edges = _edges(values, width)
    counts = np.histogram(values, edges)[0]
    panel.stairs(counts, edges, fill=True, color=SERIES[0], label="all samples")
    if flipped is not None:
        panel.stairs(
            np.histogram(values[wrong], edges)[0], edges, fill=True, color=SERIES[1], label="wrong labels"
        )
        panel.legend(frameon=False)
    panel.axvline(0, color=INK, linewidth=1, linestyle="--")
    panel.set_xscale("asinh", linear_width=width)
    _tail_ticks(panel.xaxis, values, width)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(True, axis="y")
    panel.set_ylabel("samples")
    panel.set_xlabel("← useful\u2003derivative\u2003harmful →")
    harmful = int((values > 0).sum())
    about = f"{harmful:,} of {len(values):,} samples are harmful: their derivative is positive"
    if flipped is not None:
        about += f"; of {int(wrong.sum()):,} wrong labels {int((values[wrong] > 0).sum()):,} are harmful"
    named(figure, "Derivative of the validation loss in each sample's weight", about)
    return figure


@styled()
def derivative_against_loss(scores: pd.DataFrame, flipped: np.ndarray | None = None) -> Figure:
    """Each sample's derivative against its leave-one-out loss, as points where few and as cells where many.

    A cell is the stronger the more samples are in it, and has the colour of wrong labels where most of them
    are such.

    Args:
        scores: (n) rows with `derivative` and `loo_loss`.
        flipped: (n,) bool, samples whose label is known to be wrong.
    """
    loss, derivative = (scores[name].to_numpy(float) for name in ("loo_loss", "derivative"))
    finite = np.isfinite(loss) & np.isfinite(derivative)
    loss, derivative = loss[finite], derivative[finite]
    wrong = _known(flipped, scores)[finite]
    figure, [panel] = panels(1, 6.4, 3.8)
    width_x, width_y = _linear_width(loss), _linear_width(derivative)
    panel.set_xscale("asinh", linear_width=width_x)
    panel.set_yscale("asinh", linear_width=width_y)
    edges_x = _edges(loss, width_x, _CELLS[0])
    edges_y = _edges(derivative, width_y, _CELLS[1])
    column = np.clip(np.searchsorted(edges_x, loss, "right") - 1, 0, len(edges_x) - 2)
    row = np.clip(np.searchsorted(edges_y, derivative, "right") - 1, 0, len(edges_y) - 2)
    place = column * (len(edges_y) - 1) + row
    counts = np.bincount(place, minlength=(len(edges_x) - 1) * (len(edges_y) - 1))
    wrong_counts = np.bincount(place[wrong], minlength=len(counts))
    single = (counts[place] == 1) | (len(loss) <= _MOST_POINTS)
    mostly = 2 * wrong_counts > counts
    crowded = np.unique(place[~single])
    for colour, cells in ((SERIES[0], crowded[~mostly[crowded]]), (SERIES[1], crowded[mostly[crowded]])):
        i, j = np.divmod(cells, len(edges_y) - 1)
        boxes = np.column_stack([edges_x[i], edges_x[i + 1], edges_y[j], edges_y[j + 1]])
        _density(panel, boxes, counts[cells], int(counts.max(initial=1)), colour)
    for colour, which, name in (
        (SERIES[0], single & ~wrong, "samples"),
        (SERIES[1], single & wrong, "wrong labels"),
    ):
        panel.plot(
            loss[which],
            derivative[which],
            "o",
            color=colour,
            markersize=3,
            markeredgewidth=0,
            clip_on=False,  # the outermost points lie on the edge
            label=name,
        )
    if flipped is not None:
        panel.legend(frameon=False)
    panel.axhline(0, color=INK, linewidth=1, linestyle="--")
    panel.set_xlim(edges_x[0], edges_x[-1])
    panel.set_ylim(edges_y[0], edges_y[-1])
    _tail_ticks(panel.xaxis, loss, width_x)
    _tail_ticks(panel.yaxis, derivative, width_y)
    panel.set_xlabel("leave-one-out loss")
    panel.set_ylabel("← useful\u2003derivative\u2003harmful →")
    about = f"{len(loss):,} samples"
    if len(crowded):
        about += f"; a cell holds up to {int(counts.max()):,} of them"
    named(figure, "Derivative against leave-one-out loss", about)
    return figure


@styled()
def class_bars(scores: pd.DataFrame, most: int = MOST_BARS) -> Figure:
    """Of each class the share of harmful samples and of labels called wrong, the largest first.

    Args:
        scores: (n) rows with `label`, `derivative` and `mislabel_probability`.
        most: Classes shown at the most.
    """
    classes = (
        pd.DataFrame(
            {
                "label": scores["label"].astype("str"),
                "harmful": scores["derivative"] > 0,
                "called": mislabelled(scores),
            }
        )
        .groupby("label")
        .agg(n=("harmful", "size"), harmful=("harmful", "mean"), called=("called", "mean"))
    )
    classes = classes.sort_values(["harmful", "called", "n"], ascending=False, kind="stable")
    shown = classes.head(most)
    places = np.arange(len(shown))
    figure, [panel] = panels(1, 6.4, 1.4 + 0.27 * len(shown))
    panel.barh(places - 0.19, 100 * shown["harmful"], 0.38, color=SERIES[0], label="harmful")
    panel.barh(places + 0.19, 100 * shown["called"], 0.38, color=SERIES[1], label="label called wrong")
    _rows(panel, [f"{label_text(name, _LABEL_WIDTH)} ({n:,})" for name, n in shown["n"].items()])
    panel.set_xlim(0, max(1.0, 105 * float(shown[["harmful", "called"]].to_numpy().max(initial=0))))
    panel.set_xlabel("% of the class's samples")
    panel.legend(frameon=False, loc="lower right")
    named(
        figure,
        _cut("Harmful samples and labels called wrong, by class", len(shown), len(classes), "classes"),
        f"most harmful: {label_text(shown.index[0], 80)}, {shown['harmful'].iloc[0]:.0%} of its samples",
    )
    return figure


@styled()
def group_bars(harm: pd.DataFrame, by: str, most: int = MOST_BARS) -> Figure:
    """What the values of a column do to the summed validation loss, most harmful first.

    Args:
        harm: A table of harm.
        by: One of its values of `by`.
        most: Values shown at the most: those with the largest sums.

    Raises:
        DataError: The table has no such sums.
    """
    rows = _numbers(harm[harm["by"] == by], "n_samples", "derivative", "loss_change_exact")
    if rows.empty:
        raise DataError(
            f"no sums by {by}",
            expected=f"one of {', '.join(map(str, harm['by'].unique())) or 'those of diva score --by'}",
            hint=f"run diva score with --by {by}",
        )
    largest = rows["derivative"].abs().nlargest(most, keep="all").index[:most]
    shown = rows[rows.index.isin(largest)].sort_values("derivative", ascending=False, kind="stable")
    places = np.arange(len(shown))
    figure, [panel] = panels(1, 6.4, 1.4 + 0.22 * len(shown))
    values = shown["derivative"].to_numpy(float)
    panel.barh(places, values, 0.66, color=[SERIES[1] if value > 0 else SERIES[0] for value in values])
    exact = -shown["loss_change_exact"].to_numpy(float)
    if np.isfinite(exact).any():
        panel.plot(exact, places, "D", color=INK, markersize=3.5, label="by an exact refit without them")
        panel.legend(frameon=False, loc="best")
    panel.axvline(0, color=INK, linewidth=1)
    names = zip(shown["value"].fillna(""), shown["n_samples"], strict=True)
    _rows(panel, [f"{label_text(name, _LABEL_WIDTH) or '(empty)'} ({int(n):,})" for name, n in names])
    panel.set_xlabel("← useful\u2003sum of weight \N{MULTIPLICATION SIGN} derivative\u2003harmful →")
    named(
        figure,
        _cut(f"What samples of one {label_text(by, 30)} do to the loss", len(shown), len(rows), "values"),
        f"most harmful: {label_text(shown['value'].iloc[0], 80) or '(empty)'}, {values[0]:+.3g}",
    )
    return figure


@styled()
def confusions(scores: pd.DataFrame, most: int = MOST_CONFUSED) -> Figure:
    """How many labels that are called wrong are suggested to be which other one.

    Args:
        scores: (n) rows with `label`, `suggested_label` and `mislabel_probability`.
        most: Classes shown at the most: those with most such samples, given or suggested.
    """
    called = scores[mislabelled(scores)]
    given, suggested = called["label"].astype("str"), called["suggested_label"].astype("str")
    numbers = pd.concat([given, suggested]).value_counts()
    order = sorted(numbers.index, key=lambda name: (-numbers[name], name))
    names = sorted(order[:most])
    counts = pd.crosstab(given, suggested).reindex(index=names, columns=names, fill_value=0).to_numpy(int)
    k = max(1, len(names))
    figure, [panel] = panels(1, 2.6 + 0.3 * k, 2.2 + 0.27 * k)
    i, j = np.nonzero(counts)
    boxes = np.column_stack([j - 0.5, j + 0.5, i - 0.5, i + 0.5])
    _density(panel, boxes, counts[i, j], int(counts.max(initial=1)), SERIES[0])
    for row, column in zip(i.tolist(), j.tolist(), strict=True):
        panel.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=7.5)
    labels = [label_text(name, 20) for name in names]
    panel.set_xticks(np.arange(len(names)), labels, rotation=60, ha="right", rotation_mode="anchor")
    panel.set_yticks(np.arange(len(names)), labels)
    panel.tick_params(length=0)
    panel.set_xlim(-0.5, k - 0.5)
    panel.set_ylim(k - 0.5, -0.5)
    panel.set_xlabel("suggested")
    panel.set_ylabel("given")
    if not names:
        panel.text(0, 0, "no label is called wrong", ha="center", va="center")
    left = f"\n{len(names)} of {len(order)} classes" if len(order) > len(names) else ""
    named(
        figure,
        f"Labels called wrong: {len(called):,}{left}",
        f"given and suggested labels; {int(counts.sum()):,} of them are shown",
    )
    return figure


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
    panel.xaxis.set_major_formatter(_PLAIN_NUMBERS)
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
    history = _numbers(history, "n_selected", "loss", "error")
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
        panel.xaxis.set_major_formatter(_PLAIN_NUMBERS)
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
    history = _numbers(history, "step", "train_loss", "kfold_loss", "loo_error", "test_error")
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


def _numbers(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with numbers in some columns, whose cells may be text still; NaN where there is none."""
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in names})


def _line(panel: Axes, x: Any, y: Any, name: str, series: int) -> None:
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(y)
    panel.plot(x[there], y[there], "o-", color=SERIES[series], markersize=3, linewidth=1.5, label=name)
    panel.grid(True, axis="both")


def _rows(panel: Axes, names: list[str]) -> None:
    """Name the bars, the first one on top."""
    panel.set_yticks(np.arange(len(names)), names)
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(True)


def _cut(title: str, shown: int, n: int, what: str) -> str:
    """A title that says how many bars are left out."""
    return title if shown == n else f"{title}\n{shown} of {n:,} {what}; {n - shown:,} left out"


def _known(flipped: np.ndarray | None, scores: pd.DataFrame) -> np.ndarray:
    return np.zeros(len(scores), bool) if flipped is None else np.asarray(flipped, bool)


def _finite(scores: pd.DataFrame, name: str) -> np.ndarray:
    values = scores[name].to_numpy(float)
    return values[np.isfinite(values)]


def _linear_width(values: np.ndarray) -> float:
    """Half of the values are nearer to zero: there an axis is linear, and logarithmic beyond."""
    sizes = np.abs(values[values != 0])
    return float(np.median(sizes)) if len(sizes) else 1.0


def _edges(values: np.ndarray, width: float, n: int = _BINS) -> np.ndarray:
    """Edges of about n bins of equal breadth on the axis, one of them at zero."""
    places = np.arcsinh(values / width)
    low, high = min(places.min(initial=0), 0.0), max(places.max(initial=0), 0.0)
    breadth = (high - low) / (n - 2) or 1.0
    first, last = np.floor(low / breadth), max(np.ceil(high / breadth), 1.0)
    # A little wider, so that rounding leaves none of the values outside.
    return width * np.sinh(breadth * np.arange(first, last + 1) * (1 + 1e-12))


def _tail_ticks(axis: Axis, values: np.ndarray, width: float) -> None:
    """Ticks at zero, at powers of ten and between them, as many as there is room for."""
    span = np.ptp(np.arcsinh(np.append(values, 0.0) / width))
    ticks, places = [0.0], [0.0]
    for mantissa in (1, 3):
        for sign in (-1, 1):
            largest = (sign * values).max(initial=0)
            power = np.floor(np.log10(largest / mantissa)) if largest > 0 else -np.inf
            while (place := np.arcsinh(mantissa * 10.0**power / width)) > _TICK_ROOM * span:
                if np.abs(sign * place - np.array(places)).min() > _TICK_ROOM * span:
                    ticks.append(sign * mantissa * 10.0**power)
                    places.append(sign * place)
                power -= 1
    axis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_PLAIN_NUMBERS)


def _density(panel: Axes, boxes: np.ndarray, counts: np.ndarray, largest: int, colour: str) -> None:
    """Boxes that are the stronger the more there is in them, on a logarithmic scale of few levels.

    All boxes of a level are one path: a file would be several times as large with one for each.

    Args:
        panel: Where.
        boxes: (m, 4) left, right, bottom, top.
        counts: (m,) in each.
        largest: That has the strongest colour.
        colour: Of all.
    """
    share = np.log1p(counts) / np.log1p(largest)
    levels = np.ceil(share * _LEVELS).astype(int)
    for level in np.unique(levels):
        left, right, bottom, top = boxes[levels == level].T
        corners = np.stack([left, bottom, right, bottom, right, top, left, top, left, bottom], axis=1)
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(left)
        alpha = _FAINTEST + (_STRONGEST - _FAINTEST) * (level - 1) / (_LEVELS - 1)
        panel.add_patch(
            PathPatch(Path(corners.reshape(-1, 2), codes), facecolor=colour, alpha=alpha, linewidth=0)
        )
