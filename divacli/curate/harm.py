"""Where the harm comes from: derivatives summed over all samples of a class, an annotator, a confusion.

The sum of `weight * derivative` over a group is the derivative of the loss in one factor on all its weights,
so minus it is what removing the group does to the loss, to the first order. Large groups move the fit further
than that holds: those whose sum is largest are removed, and the exact change stands beside the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from divacli.curate.sample_scores import ScoreResult
from divacli.curate.wrong_labels import mislabelled
from divacli.errors import DataError, SolveError, listed
from divacli.manifest import Manifest
from divacli.manifest.columns import DERIVATIVE, MISLABEL_PROBABILITY, SUGGESTED_LABEL
from divacli.progress import Progress, silent
from divacli.ridge import Removal
from divacli.solve.groups import group_names

BY_CLASS = "class"
"""Sums over the given labels."""

BY_PAIR = "pair"
"""Sums over given label and suggested label of the samples whose label is called wrong."""

EXACT = 50
"""Values of a column whose removal is refitted, at the most: those that would change the loss most."""

FAR = 0.5
"""Share of the exact change by which the first order misses it where it is called far."""

HARM_COLUMNS = (
    "by",
    "value",
    "label",
    SUGGESTED_LABEL,
    "n_samples",
    "weight",
    DERIVATIVE,
    "harmful",
    "mislabelled",
    "loss_change_predicted",
    "loss_change_exact",
)
"""Columns of a table of harm, in order."""

_KEYS = ["value", "label", SUGGESTED_LABEL]


@dataclass(frozen=True)
class HarmResult:
    """What groups of samples do to the summed validation loss.

    Attributes:
        table: `HARM_COLUMNS`, one row for every value of every column, the columns one below the other, the
            values of a column most harmful first, ties by value. `label` and `suggested_label` are those of a
            pair, and "" elsewhere. `derivative` is the sum of weight times derivative, `harmful` the number
            of samples whose derivative is positive, `mislabelled` the expected number of wrong labels,
            `loss_change_predicted` minus `derivative`, and `loss_change_exact` the summed loss after a refit
            without the samples minus the loss with them. That is NaN where it was not computed (all but
            `EXACT` of a column), and where the rest has no answer, such as where fewer than two classes would
            be left.
        columns: That were asked for, in order; one may have no row: `BY_PAIR` where no label is suspect.
        loss: The summed validation loss with all samples, at the ridge.
        ridge: lambda of derivatives and refits.
    """

    table: pd.DataFrame
    columns: tuple[str, ...]
    loss: float
    ridge: float


def require_columns(manifest: Manifest, columns: Sequence[str]) -> None:
    """Refuse samples that lack a column to sum derivatives by.

    Raises:
        DataError: There is no such column.
    """
    for column in columns:
        if column not in (BY_CLASS, BY_PAIR, *manifest.table):
            raise DataError(
                f"{manifest.name} has no column {column} for --by; its columns are: "
                + listed(manifest.table.columns.tolist(), limit=12),
                expected=f"{BY_CLASS}, {BY_PAIR}, or a column of DATA, such as annotator or source",
                hint="name one of these, or add the column",
            )


def harm_by(result: ScoreResult, columns: Sequence[str], progress: Progress = silent) -> HarmResult:
    """Sum derivatives over the values of columns, and refit without those that matter most.

    Args:
        result: The scores.
        columns: `BY_CLASS`, `BY_PAIR`, or columns of the scored samples, whose cells are compared as text; an
            empty cell is a value like any other.
        progress: Told of every refit.
    """
    solution = result.solution
    removal = Removal(solution.solved, solution.ridge, solution.loss, solution.solved_validation)
    asked = tuple(dict.fromkeys(columns))
    sums = [_summed(result.table, column) for column in asked]
    with progress("refitting without groups", sum(len(members) for _, members in sums)) as advance:
        for table, members in sums:
            for row, rows in members.items():
                table.loc[row, "loss_change_exact"] = _exact(removal, result.order[rows])
                advance(1)
    table = pd.concat([table for table, _ in sums], ignore_index=True)
    return HarmResult(table, asked, removal.loss, solution.ridge)


def far_off(table: pd.DataFrame) -> pd.Series:
    """Which rows of a table of harm have an exact change that the first order misses by more than `FAR`.

    Args:
        table: (m) rows.

    Returns:
        (m,) bool.
    """
    exact = table["loss_change_exact"]
    return (exact - table["loss_change_predicted"]).abs() > FAR * exact.abs()


def _summed(scores: pd.DataFrame, by: str) -> tuple[pd.DataFrame, dict[int, np.ndarray]]:
    """The table of one column without exact changes, and of its rows to refit the rows of the scores."""
    keys = _keys(scores, by)
    rows = scores.loc[keys.index]
    amounts = keys.assign(
        n_samples=1,
        weight=rows["weight"],
        derivative=rows["weight"] * rows[DERIVATIVE],
        harmful=(rows[DERIVATIVE] > 0).astype(int),
        mislabelled=rows[MISLABEL_PROBABILITY],
    )
    groups = amounts.groupby(_KEYS)
    table = groups.sum().reset_index()
    # Stable: the values are sorted.
    order = np.argsort(-table[DERIVATIVE].to_numpy(), kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    table = table.assign(by=by, loss_change_predicted=0.0 - table[DERIVATIVE], loss_change_exact=np.nan)
    number = groups.ngroup()
    largest = np.argsort(-table[DERIVATIVE].abs().to_numpy(), kind="stable")[:EXACT]
    members = {int(row): number.index[number == order[row]].to_numpy() for row in largest}
    return table[list(HARM_COLUMNS)], members


def _keys(scores: pd.DataFrame, by: str) -> pd.DataFrame:
    """`_KEYS` of the samples that are summed, all text, by row of the scores."""
    if by == BY_PAIR:
        label, suggested = scores["label"], scores[SUGGESTED_LABEL]
        keys = pd.DataFrame({"value": label + " -> " + suggested, "label": label, SUGGESTED_LABEL: suggested})
        return keys[mislabelled(scores)]
    value = group_names(scores["label" if by == BY_CLASS else by])
    return pd.DataFrame({"value": value, "label": "", SUGGESTED_LABEL: ""})


def _exact(removal: Removal, rows: np.ndarray) -> float:
    try:
        return removal.change(torch.from_numpy(rows))
    except SolveError:
        return float("nan")  # the rest is no problem with an answer
