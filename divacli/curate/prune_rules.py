"""Decide by a table of scores which samples to drop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.wrong_labels import (
    MORE_LIKELY_WRONG,
    Expectation,
    errors_first,
    mislabelled,
    outliers,
    require_judged,
)
from divacli.manifest.columns import (
    DERIVATIVE,
    LOO_LOSS,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
    REASON,
    without_scores,
)
from divacli.ridge import Kept, kept_fraction

CRITERIA = (DERIVATIVE, LOO_LOSS)


@dataclass(frozen=True)
class Choice:
    """Which samples stay.

    Attributes:
        kept: (n,) bool.
        rescued: Labels of classes of which one sample stays only because it would have been the last.
    """

    kept: np.ndarray
    rescued: list[str]

    @classmethod
    def of(cls, found: Kept, table: pd.DataFrame, rows: np.ndarray | None = None) -> Choice:
        """The choice among some rows of a table, by default all; others stay.

        Args:
            found: Which of the rows stay, (m,).
            table: (n) samples with their labels.
            rows: (m,) int64.
        """
        rows = np.arange(len(table)) if rows is None else rows
        kept = np.ones(len(table), bool)
        kept[rows] = found.stays.numpy()
        rescued = table["label"].to_numpy(object)[rows[found.rescued.numpy()]]
        return cls(kept, sorted(rescued))


def choose_kept(
    table: pd.DataFrame,
    *,
    keep: float | None = None,
    threshold: float | None = None,
    by: str = DERIVATIVE,
    stratify: bool = False,
) -> Choice:
    """Decide which samples stay.

    The worst samples are those with the largest value of `by`; of equals, the one whose path comes last goes
    first. Every class keeps at least one sample: its best.

    Args:
        table: Columns path, label and `by`.
        keep: Fraction (0, 1] to keep, rounded up.
        threshold: Drop every sample whose value is at least this; one of `keep` and `threshold`.
        by: "derivative" or "loo_loss".
        stratify: Apply `keep` within every class.

    Raises:
        DataError: The table has no such column, or no value in some row.
    """
    require_judged(table, (by,))
    values, labels = table[by].to_numpy(float), _numbered(table)
    worst_first = torch.from_numpy(np.lexsort((table["path"].to_numpy(str), values))[::-1].copy())
    if threshold is not None:
        found = Kept.of(torch.from_numpy(values < threshold), labels, worst_first)
    else:
        assert keep is not None  # one of the two
        found = kept_fraction(worst_first, labels, keep, stratify=stratify)
    return Choice.of(found, table)


@dataclass(frozen=True)
class Automatic:
    """What `--keep auto` decides.

    Attributes:
        choice: Which samples stay.
        mislabelled: (n,) bool, whose label is called wrong, whether or not the sample stays.
        outliers: (n,) bool, samples like nothing else in the set.
        threshold: Probability above which a label is called wrong.
        budget: Samples to drop at the most.
        expectation: What the label-noise model expects of the dropped samples that are called wrong.
    """

    choice: Choice
    mislabelled: np.ndarray
    outliers: np.ndarray
    threshold: float
    budget: int | None
    expectation: Expectation

    @property
    def n_outliers(self) -> int:
        """Outliers that are dropped."""
        return int((self.outliers & ~self.choice.kept).sum())

    @property
    def rule(self) -> dict[str, Any]:
        """What was decided by and what is expected of it, for JSON."""
        return {
            "keep": "auto",
            "threshold": self.threshold,
            "budget": self.budget,
            "mislabelled": self.expectation.as_dict(),
            "n_outliers": self.n_outliers,
        }

    def reasons(self) -> np.ndarray:
        """Why each sample is dropped, (n,) text: "label", "outlier" or both; "" for those that are not."""
        label, outlier = np.where(self.mislabelled, "label", ""), np.where(self.outliers, "outlier", "")
        both = np.where(self.mislabelled & self.outliers, ", ", "")
        reasons = label.astype(object) + both.astype(object) + outlier.astype(object)
        reasons[self.choice.kept] = ""
        return reasons


def choose_automatically(
    table: pd.DataFrame, threshold: float | None = None, budget: int | None = None
) -> Automatic:
    """Drop the samples whose label is more likely wrong than right, and the outliers.

    Every class keeps at least one sample: the one whose label is most probably right.

    Args:
        table: Scores with `mislabel_probability` and `outlier_score`.
        threshold: Probability of a wrong label above which a sample goes; by default one half.
        budget: Samples to drop at the most: wrong labels first, the most probable first, then outliers, the
            oddest first.

    Raises:
        DataError: The table has no such columns.
    """
    require_judged(table, (MISLABEL_PROBABILITY, OUTLIER_SCORE))
    threshold = MORE_LIKELY_WRONG if threshold is None else threshold
    wrong, odd = mislabelled(table, threshold), outliers(table)
    paths = table["path"].to_numpy(str)
    probability = table[MISLABEL_PROBABILITY].to_numpy(float)
    dropped = wrong | odd
    if budget is not None:
        oddest_first = np.lexsort((paths, -table[OUTLIER_SCORE].to_numpy(float).round(6)))
        likeliest_first = errors_first(table)
        only_odd = odd & ~wrong
        first_to_go = np.concatenate(
            [likeliest_first[wrong[likeliest_first]], oddest_first[only_odd[oddest_first]]]
        )
        dropped[first_to_go[budget:]] = False
    worst_first = torch.from_numpy(np.lexsort((paths, probability))[::-1].copy())
    choice = Choice.of(Kept.of(torch.from_numpy(~dropped), _numbered(table), worst_first), table)
    expected = Expectation.of(probability, wrong & ~choice.kept)
    return Automatic(choice, wrong, odd, threshold, budget, expected)


def _numbered(table: pd.DataFrame) -> torch.Tensor:
    """Class numbers (n,) int64."""
    return torch.from_numpy(np.unique(table["label"].to_numpy(str), return_inverse=True)[1])


def split(table: pd.DataFrame, kept: np.ndarray, order: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest of what stays, in its own order, and the scores of what goes.

    Scores hold for the samples they were computed with, so those that stay lose them.

    Args:
        table: Scores.
        kept: (n,) bool.
        order: (n,) row numbers, those that go first coming first.
    """
    stays = without_scores(table[kept]).drop(columns=REASON, errors="ignore").reset_index(drop=True)
    return stays, table.iloc[order[~kept[order]]].reset_index(drop=True)
