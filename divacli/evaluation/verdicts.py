"""Who won: the difference of two test errors, with an interval that knows both of its sources of chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """A manifest against one of its rivals.

    Attributes:
        learner: Name of the learner.
        training_set: The manifest.
        rival: The set that it was compared with.
        difference: Test error of the manifest minus that of the rival (negative = better).
        low: Lower end of the difference's interval; None where a single run of something random gives none.
        high: Upper end.
        confidence: Of the interval: 0.95 of one manifest, `1 - 0.05 / k` of each of k.
    """

    learner: str
    training_set: str
    rival: str
    difference: float
    low: float | None
    high: float | None
    confidence: float

    @property
    def more_than_chance(self) -> bool:
        """True if the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def confidence_of(comparisons: int) -> float:
    """Confidence of each of k intervals that hold together with probability 0.95 or more (Bonferroni).

    Args:
        comparisons: k.
    """
    return 1 - (1 - CONFIDENCE) / max(comparisons, 1)


def difference_interval(
    wrong: np.ndarray, rival: np.ndarray, weights: np.ndarray, confidence: float, *, random: bool
) -> tuple[float, float | None, float | None]:
    """The difference of two test errors, and its confidence interval.

    Two variances are added. That of the finite test set comes from the differences sample by sample, averaged
    over runs; one more sample on which the two disagree is counted, so that few disagreements claim little.
    That of draws or seeds is the variance of a run's difference, divided by the number of runs. The quantile
    is Student's, with degrees of freedom by Welch and Satterthwaite.

    Args:
        wrong: (r, m) bool, mistakes of each run of one training set.
        rival: (q, m) bool, mistakes of the other; r and q are equal, or one of them is 1. Runs are paired.
        weights: (m,) positive weights of the test samples.
        confidence: Of the interval, such as 0.95.
        random: True if another draw or seed could have given other runs.

    Returns:
        The error of the first minus that of the second, lower end, upper end. The ends are None where there
        is a single run of something random.

    Source:
        After Agresti and Min, Simple improved confidence intervals for comparing matched proportions,
        Statistics in Medicine 24 (2005), who add half a sample to each of the four cells.
    """
    share = weights / weights.sum()
    runs = wrong.astype(float) - rival.astype(float)
    by_run = runs @ share
    difference = float(by_run.mean())
    if random and len(runs) == 1:
        return difference, None, None
    deviation = share * (runs.mean(axis=0) - difference)
    one_sample = float(share @ share)
    of_test = float(deviation @ deviation) + one_sample**2
    of_runs = float(by_run.var(ddof=1)) / len(runs) if random else 0.0
    squares = of_test**2 / max(1 / one_sample - 1, 1)
    if of_runs > 0:
        squares += of_runs**2 / (len(runs) - 1)
    variance = of_test + of_runs
    quantile = float(stdtrit(variance**2 / squares, (1 + confidence) / 2))
    margin = quantile * math.sqrt(variance)
    return difference, max(-1.0, difference - margin), min(1.0, difference + margin)
