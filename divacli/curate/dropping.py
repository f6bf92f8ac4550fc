"""Rules that drop samples. The forecast applies the same rule without each fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from divacli.curate.outlook import Judge, kept_weights, random_kept
from divacli.curate.score_table import Scores
from divacli.curate.wrong_labels import MORE_LIKELY_WRONG, outliers, require_judged
from divacli.manifest.columns import LOO_LOSS, MISLABEL_PROBABILITY, OUTLIER_SCORE
from divacli.ridge import (
    RANDOM,
    Decide,
    Evidence,
    Kept,
    Rest,
    TrainingWeights,
    dropping_order,
    kept_fraction,
    leave_one_out,
    moments,
)
from divacli.ridge.dropping import COVERAGE, EASY


class Seen(Protocol):
    """Samples that a decision is made on."""

    @property
    def seed(self) -> int:
        """Of what is drawn at random."""

    @property
    def labels(self) -> Tensor:
        """(m,) int64 class numbers."""

    @property
    def place(self) -> Tensor:
        """(m,) int64, where each stands in the order of the paths."""

    def evidence(self, threshold: float, rule: str = "") -> Evidence:
        """What is known of them.

        Args:
            threshold: Probability above which a label is called wrong.
            rule: That it is for: some need more than others.
        """

    def values(self, column: str) -> Tensor:
        """Their derivative or leave-one-out loss, (m,) float64."""


Decision = Callable[[Seen], Kept]
"""From m samples to those that stay."""


@dataclass(frozen=True)
class SeenInTable:
    """All samples of positive weight, as a table of scores has them.

    Attributes:
        scores: The table.
        judge: The samples' features; None where they are not to be had, and no rule that needs them is asked.
        seed: Of what is drawn at random.
    """

    scores: Scores
    judge: Judge | None
    seed: int

    @cached_property
    def rows(self) -> np.ndarray:
        """Which rows of the table they are, (m,) int64; a sample of weight 0 is absent already."""
        table = self.scores.table
        return (
            np.flatnonzero(table["weight"].to_numpy(float) > 0)
            if "weight" in table
            else np.arange(len(table))
        )

    @property
    def labels(self) -> Tensor:
        """See `Seen`."""
        labels = self.scores.table["label"].to_numpy(str)[self.rows]
        return torch.from_numpy(np.unique(labels, return_inverse=True)[1])

    @property
    def place(self) -> Tensor:
        """See `Seen`."""
        paths = self.scores.table["path"].to_numpy(str)[self.rows]
        place = np.empty(len(paths), np.int64)
        place[np.argsort(paths, kind="stable")] = np.arange(len(paths))
        return torch.from_numpy(place)

    def evidence(self, threshold: float, rule: str = "") -> Evidence:
        """See `Seen`."""
        table = self.scores.table
        require_judged(table, (MISLABEL_PROBABILITY, OUTLIER_SCORE, LOO_LOSS))
        wrong = self.values(MISLABEL_PROBABILITY)
        return Evidence(
            self.labels,
            wrong,
            (wrong > threshold) | torch.from_numpy(outliers(table)[self.rows]),
            self.values(LOO_LOSS),
            self._leverage if rule == COVERAGE else None,
            self.place,
        )

    @cached_property
    def _leverage(self) -> Tensor | None:
        """(m,) float64; None without features."""
        if self.judge is None:
            return None
        problem = self.judge.problem
        fit = moments(problem.task).fit(problem.ridge)
        return leave_one_out(problem.task, fit, self.judge.loss).leverage[self.rows]

    def values(self, column: str) -> Tensor:
        """See `Seen`."""
        require_judged(self.scores.table, (column,))
        return torch.from_numpy(self.scores.table[column].to_numpy(float)[self.rows])


@dataclass(frozen=True)
class SeenWithoutFold:
    """The samples without a fold, as they see themselves.

    Attributes:
        judge: What decisions are judged by.
        rest: The samples.
        outlying: (n,) bool of all samples, which are like nothing else: no label says so.
    """

    judge: Judge
    rest: Rest
    outlying: Tensor

    @property
    def seed(self) -> int:
        """See `Seen`."""
        return self.rest.seed

    @property
    def labels(self) -> Tensor:
        """See `Seen`."""
        return self.rest.task.labels[self.rest.rows]

    @property
    def place(self) -> Tensor:
        """See `Seen`."""
        return self.judge.place[self.rest.rows]

    def evidence(self, threshold: float, rule: str = "") -> Evidence:
        """See `Seen`."""
        rest, wrong = self.rest, self._wrong
        return Evidence(
            self.labels,
            wrong,
            (wrong > threshold) | self.outlying[rest.rows],
            self.judge.losses(rest) if rule == EASY else torch.zeros_like(wrong),
            rest.leverage if rule == COVERAGE else None,
            self.place,
        )

    @cached_property
    def _wrong(self) -> Tensor:
        """(m,) float64, looked at once for all rules."""
        return self.judge.wrong(self.rest)

    def values(self, column: str) -> Tensor:
        """See `Seen`."""
        return self.judge.losses(self.rest) if column == LOO_LOSS else self.rest.derivative(self.judge.loss)


def by_rule(rule: str, keep: float, *, stratify: bool) -> Decision:
    """Keep a fraction by a rule of `divacli.ridge.dropping`."""

    def decide(seen: Seen) -> Kept:
        known = seen.evidence(MORE_LIKELY_WRONG, rule)
        return kept_fraction(dropping_order(rule, known, seen.seed), known.labels, keep, stratify=stratify)

    return decide


def by_column(column: str, keep: float | None, threshold: float | None, *, stratify: bool) -> Decision:
    """Drop the largest values of a column of scores: all but a fraction, or those from a threshold on."""

    def decide(seen: Seen) -> Kept:
        values = seen.values(column)
        last_first = torch.argsort(seen.place, descending=True)
        order = last_first[torch.argsort(-values[last_first], stable=True)]
        if threshold is None:
            assert keep is not None  # one of the two
            return kept_fraction(order, seen.labels, keep, stratify=stratify)
        return Kept.of(values < threshold, seen.labels, order)

    return decide


def by_label(threshold: float, share: float | None) -> Decision:
    """Drop what is called wrong or odd, as `divacli.curate.prune_rules.choose_automatically` does.

    Args:
        threshold: Probability above which a label is called wrong.
        share: Of the samples that may go at the most; None: all that are called so.
    """

    def decide(seen: Seen) -> Kept:
        known = seen.evidence(threshold)
        wrong = (known.wrong > threshold).double()
        # Wrong labels first, then outliers; ties by path.
        first = torch.argsort(known.place)
        worst = (wrong + known.wrong + 2 * known.called)[first]
        worst_first = first[torch.argsort(worst, descending=True, stable=True)]
        n_dropped = int(known.called.sum())
        if share is not None:
            n_dropped = min(n_dropped, round(share * len(known.labels)))
        stays = torch.ones(len(worst_first), dtype=torch.bool)
        stays[worst_first[:n_dropped]] = False
        return Kept.of(stays, known.labels, worst_first)

    return decide


def without_fold(judge: Judge, outlying: Tensor, decisions: Mapping[str, Decision]) -> Decide:
    """The decisions as the judge asks for them, beside a random choice of the size of the first one.

    Args:
        judge: What they are judged by.
        outlying: As of `SeenWithoutFold`.
        decisions: By name; `RANDOM` may be among them.
    """

    def decide(rest: Rest) -> dict[str, TrainingWeights]:
        seen = SeenWithoutFold(judge, rest, outlying)
        kept = {name: decision(seen).stays for name, decision in decisions.items()}
        n_dropped = int((~next(iter(kept.values()))).sum())
        kept.setdefault(RANDOM, random_kept(rest, judge.place, n_dropped))
        return {name: TrainingWeights(kept_weights(rest, stays)) for name, stays in kept.items()}

    return decide
