"""Plots by class or by another column: shares of harmful samples, sums of derivatives, and confusions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from divacli.curate.wrong_labels import mislabelled
from divacli.errors import DataError
from divacli.manifest.columns import DERIVATIVE, SUGGESTED_LABEL
from divacli.report.figures.drawing import INK, SERIES, density, label_text, named, numeric, panels, styled

MOST_BARS = 30
"""Classes or groups in one plot, at the most."""

MOST_CONFUSED = 20
"""Classes of a table of confusions, at the most."""

_LABEL_WIDTH = 28


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
                "harmful": scores[DERIVATIVE] > 0,
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
    rows = numeric(harm[harm["by"] == by], "n_samples", DERIVATIVE, "loss_change_exact")
    if rows.empty:
        raise DataError(
            f"no sums by {by}",
            expected=f"one of {', '.join(map(str, harm['by'].unique())) or 'those of diva score --by'}",
            hint=f"run diva score with --by {by}",
        )
    largest = rows[DERIVATIVE].abs().nlargest(most, keep="all").index[:most]
    shown = rows[rows.index.isin(largest)].sort_values(DERIVATIVE, ascending=False, kind="stable")
    places = np.arange(len(shown))
    figure, [panel] = panels(1, 6.4, 1.4 + 0.22 * len(shown))
    values = shown[DERIVATIVE].to_numpy(float)
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
    given, suggested = called["label"].astype("str"), called[SUGGESTED_LABEL].astype("str")
    numbers = pd.concat([given, suggested]).value_counts()
    order = sorted(numbers.index, key=lambda name: (-numbers[name], name))
    names = sorted(order[:most])
    counts = pd.crosstab(given, suggested).reindex(index=names, columns=names, fill_value=0).to_numpy(int)
    k = max(1, len(names))
    figure, [panel] = panels(1, 2.6 + 0.3 * k, 2.2 + 0.27 * k)
    i, j = np.nonzero(counts)
    boxes = np.column_stack([j - 0.5, j + 0.5, i - 0.5, i + 0.5])
    density(panel, boxes, counts[i, j], int(counts.max(initial=1)), SERIES[0])
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


def _rows(panel: Axes, names: list[str]) -> None:
    """Name the bars, the first one on top."""
    panel.set_yticks(np.arange(len(names)), names)
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(True)


def _cut(title: str, shown: int, n: int, what: str) -> str:
    """A title that says how many bars are left out."""
    return title if shown == n else f"{title}\n{shown} of {n:,} {what}; {n - shown:,} left out"
