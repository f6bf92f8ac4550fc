"""Which labels are more likely wrong than right, which samples are outliers, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from divacli.errors import DataError
from divacli.manifest.columns import MISLABEL_PROBABILITY, OUTLIER_SCORE

if TYPE_CHECKING:
    import torch

MORE_LIKELY_WRONG = 0.5
"""Probability above which a label is called wrong: then it is more likely so than right."""

Threshold = float | Literal["likely", "balanced"]
"""A probability above which a label is called wrong, or how to find it: `MORE_LIKELY_WRONG`, or
`balanced_threshold`."""

LIKELY: Literal["likely"] = "likely"
BALANCED: Literal["balanced"] = "balanced"

_LEAST_OUTLIER = 0.75
_FENCE, _OWN_FENCE = 1.25, 0.5


@dataclass(frozen=True)
class Expectation:
    """What the label-noise model expects of a list of samples whose labels it calls wrong.

    Attributes:
        n: Samples on the list.
        precision: Expected share of them whose label is wrong; None of an empty list.
        recall: Expected share of all wrong labels that are on the list; None where none is expected.
    """

    n: int
    precision: float | None
    recall: float | None

    @classmethod
    def of(cls, probability: np.ndarray, listed: np.ndarray) -> Expectation:
        """Of the listed samples.

        Args:
            probability: (n,) that each label is wrong.
            listed: (n,) bool.
        """
        found, everything = float(probability[listed].sum()), float(probability.sum())
        n = int(listed.sum())
        return cls(n, found / n if n else None, found / everything if everything > 0 else None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"n": self.n, "expected_precision": self.precision, "expected_recall": self.recall}


def require_judged(table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse scores without the probabilities that a decision is made by.

    Raises:
        DataError: A column is missing, or has no value in some row.
    """
    for column in columns:
        if column not in table or (table[column].isna() | table[column].eq("")).any():
            raise DataError(
                f"the scores have no value of {column} in {'any' if column not in table else 'some'} row",
                expected=f"a table with the column {column}, as diva score writes it",
                hint="score the samples again",
            )


def mislabelled(
    table: pd.DataFrame, threshold: float = MORE_LIKELY_WRONG, budget: int | None = None
) -> np.ndarray:
    """Which labels are called wrong, (n,) bool: those above the threshold, the most probable within a budget.

    Args:
        table: Scores with `mislabel_probability`.
        threshold: Probability in [0, 1].
        budget: Samples at the most; of equals, the path that comes first stays on the list.
    """
    found = table[MISLABEL_PROBABILITY].to_numpy(float) > threshold
    if budget is not None:
        first = errors_first(table)
        found[first[found[first]][budget:]] = False
    return found


def threshold_of(probability: np.ndarray, threshold: Threshold) -> float:
    """The probability above which a label is called wrong.

    Args:
        probability: (n,) that each label is wrong.
        threshold: That probability, or how to find it.
    """
    if threshold == LIKELY:
        return MORE_LIKELY_WRONG
    if threshold == BALANCED:
        return balanced_threshold(probability)
    return float(threshold)


def balanced_threshold(probability: np.ndarray) -> float:
    """The threshold with the largest expected F1, in [0, 0.5].

    Let S be the sum of all probabilities, and A the sum of the m largest. If these m labels are called wrong,
    A of them are expected to be so, of S in all: the expected F1 is `F = 2 A / (m + S)`, a ratio of expected
    numbers. One more label of probability p raises it exactly if `p > F / 2`. So half of the largest F is a
    threshold, and above it lie the fewest labels that reach this F. Equal probabilities stay together.

    F is at most 1, so the threshold is at most 0.5: every label is called that is more likely wrong than
    right. Where no label is expected to be wrong the threshold is 0, and none is called.

    Args:
        probability: (n,) that each label is wrong, in [0, 1].

    Source: Lipton, Elkan, Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", 2014.
    """
    descending = np.sort(probability.astype(float))[::-1]
    m = np.arange(1, len(descending) + 1)
    return float((descending.cumsum() / (m + descending.sum())).max(initial=0.0))


def errors_first(table: pd.DataFrame) -> np.ndarray:
    """Row numbers, (n,) int, the most probable error first, ties by path.

    Probabilities that agree to six decimals are ties: of those nearly 1, more digits differ with the device,
    and the last ones are lost where a table is written.

    Args:
        table: Scores with `mislabel_probability`.
    """
    probability = table[MISLABEL_PROBABILITY].to_numpy(float).round(6)
    return np.lexsort((table["path"].to_numpy(str), -probability))


def doubtful(called_wrong: int, n: int) -> str | None:
    """What to tell whoever is about to act on most of the labels, or None.

    Args:
        called_wrong: Labels that are called wrong.
        n: Of how many.
    """
    if called_wrong <= n / 2:
        return None
    return (
        f"{called_wrong:,} of the {n:,} labels are called wrong: more likely the features do not see what "
        "the labels mean, or the labels are not theirs. Look at some before acting on this"
    )


def outliers(table: pd.DataFrame) -> np.ndarray:
    """Which samples are like nothing else in the set, (n,) bool, by their `outlier_score`.

    They lie beyond the threshold of the set, and beyond `Q3 + (Q3 - Q1) / 2` of their own label's scores: a
    rare class is far from the mean as a whole, and its samples are not odd for that.

    Args:
        table: Scores with `label` and `outlier_score`.
    """
    scores = table[OUTLIER_SCORE].astype(float)
    of_label = scores.groupby(table["label"].astype(object)).transform(_fence, _OWN_FENCE)
    return (scores > np.maximum(outlier_threshold(scores.to_numpy()), of_label)).to_numpy()


def outlier_threshold(scores: np.ndarray) -> float:
    """The outlier score above which a sample is an outlier.

    It is 0.75 at the least: three quarters of what a sample scores that is as far from the mean as the
    average one and of which nothing is known. And it is at least the fence `Q3 + 1.25 (Q3 - Q1)` of the
    set's own scores (after Tukey, who takes 1.5): where labels can hardly be predicted, nobody is odd for it.

    Args:
        scores: (n,) of all samples.
    """
    return max(_LEAST_OUTLIER, _fence(scores, _FENCE))


def _fence(scores: np.ndarray | pd.Series, ranges: float) -> float:
    """So many interquartile ranges above the third quartile."""
    first, third = np.quantile(scores, [0.25, 0.75])
    return float(third + ranges * (third - first))


def most_confused(confusions: torch.Tensor, classes: list[str], limit: int = 10) -> list[dict[str, Any]]:
    """The pairs of classes with the most wrong labels, `given -> suggested`, the most frequent first.

    Args:
        confusions: (k, k) expected number of samples by true class (row) and given label (column).
        classes: Label of each class number.
        limit: Pairs at the most; none of which less than half a sample is expected.
    """
    wrong = confusions.clone().fill_diagonal_(0)
    best = wrong.flatten().sort(descending=True, stable=True)
    found = []
    for expected, place in zip(best.values[:limit].tolist(), best.indices[:limit].tolist(), strict=True):
        if expected >= 0.5:
            truth, given = divmod(place, len(classes))
            found.append({"given": classes[given], "suggested": classes[truth], "expected": expected})
    return found
