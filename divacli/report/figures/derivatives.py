"""Plots of the derivative: how it is distributed, and against the leave-one-out loss."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from divacli.manifest.columns import DERIVATIVE, LOO_LOSS
from divacli.report.figures.drawing import INK, PLAIN_NUMBERS, SERIES, density, named, panels, styled

_BINS = 60
_CELLS = (36, 24)
_MOST_POINTS = 500
_TICK_ROOM = 0.08


@styled()
def derivative_histogram(scores: pd.DataFrame, flipped: np.ndarray | None = None) -> Figure:
    """How the derivatives are distributed: harmful samples are on the right.

    The axis is linear among the smaller half of them, and logarithmic in the tails.

    Args:
        scores: (n) rows with `derivative`.
        flipped: (n,) bool, samples whose label is known to be wrong.
    """
    values = _finite(scores, DERIVATIVE)
    wrong = _known(flipped, scores)[np.isfinite(scores[DERIVATIVE].to_numpy(float))]
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
    loss, derivative = (scores[name].to_numpy(float) for name in (LOO_LOSS, DERIVATIVE))
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
        density(panel, boxes, counts[cells], int(counts.max(initial=1)), colour)
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
    axis.set_major_formatter(PLAIN_NUMBERS)
