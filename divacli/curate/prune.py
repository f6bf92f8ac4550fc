"""All that `diva prune` finds out of scores: what stays, what goes, and what that does to new images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.dropping import Decision, SeenInTable, by_column, by_label, by_rule, without_fold
from divacli.curate.outlook import Judge, Outlook, preferred
from divacli.curate.prune_rules import CRITERIA, Automatic, Choice, choose_automatically, split
from divacli.curate.score_table import Scores
from divacli.curate.wrong_labels import MORE_LIKELY_WRONG, doubtful, outliers
from divacli.errors import DataError, SolveError
from divacli.manifest.columns import MISLABEL_PROBABILITY, OUTLIER_SCORE
from divacli.progress import Progress, silent
from divacli.results.names import DROPPED, FAILED, KEPT, PRUNE
from divacli.results.result import Target
from divacli.ridge import Forecast, dropping_order
from divacli.ridge.dropping import COVERAGE, RULES

FILES = (KEPT, DROPPED, f"{PRUNE}.json")
"""What is always written."""

BY_FORECAST = "auto"
"""The rule is the one with the best forecast."""

AUTOMATIC = "called wrong"
"""What the samples of `--keep auto` are dropped for, as forecasts name it."""


@dataclass(frozen=True)
class Pruning:
    """Samples that stay and samples that go.

    Attributes:
        scores: What was decided on.
        decision: Which samples stay by the decision.
        written: Whether it is written; else everything stays, for the decision does not pay.
        auto: How it was made by `--keep auto`.
        by: The column or the rule that it was made by.
        asked: What was asked for, for JSON.
        reasons: Why each sample is dropped, (n,) text.
        order: (n,) row numbers, those that go first coming first.
        outlook: What the decision should do to the error on new images; None where that is not known.
        unknown: Why not.
    """

    scores: Scores
    decision: Choice
    written: bool
    auto: Automatic | None
    by: str
    asked: dict[str, Any]
    reasons: np.ndarray
    order: np.ndarray
    outlook: Outlook | None
    unknown: str

    @property
    def choice(self) -> Choice:
        """Which samples stay, as written."""
        return self.decision if self.written else Choice(np.ones(len(self.order), bool), [])

    @property
    def n_chosen(self) -> int:
        """Samples that the decision drops, whether or not that is written."""
        return int((~self.decision.kept).sum())

    @cached_property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The samples that stay, and those that go, in the order in which they go."""
        return split(self.scores.table.assign(reason=self.reasons), self.choice.kept, self.order)

    @property
    def summary(self) -> dict[str, Any]:
        """What `prune.json` holds."""
        kept, dropped = self.tables
        return {
            "n_kept": len(kept),
            "n_dropped": len(dropped),
            "n_chosen": self.n_chosen,
            "written": "choice" if self.written else "everything",
            "by": self.by,
            **self.asked,
            **self.scores.about,
            "forecast": None if self.outlook is None else self.outlook.as_dict(),
        }

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        auto = self.auto
        doubt = None if auto is None else doubtful(int(auto.mislabelled.sum()), len(self.scores.table))
        if doubt is not None:
            yield doubt
        if self.unknown:
            yield f"no forecast was made: {self.unknown}"

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        kept, dropped = self.tables
        if self.scores.failed is not None:
            target.table(FAILED, self.scores.failed, self.scores.origin, part=True)
        target.table(DROPPED, dropped, self.scores.origin, part=True)
        target.json(f"{PRUNE}.json", self.summary)
        target.table(KEPT, kept, self.scores.origin, main=True, part=True)


def prune_automatically(
    scores: Scores,
    threshold: float | None = None,
    budget: int | None = None,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Pruning:
    """Drop labels that are more likely wrong than right, and outliers; see `choose_automatically`.

    Args:
        scores: What is decided on.
        threshold: Probability above which a label is called wrong.
        budget: Samples to drop at the most.
        force: Whether the decision is written also where it does not pay.
        progress: Told of every fold.
    """
    auto = choose_automatically(scores.table, threshold, budget)
    judge, unknown = scores.judge(progress)
    share = None if budget is None else budget / max(1, len(scores.table))
    decisions = {AUTOMATIC: by_label(auto.threshold, share)}
    found, unknown = _forecast(scores, judge, unknown, decisions, progress)
    doubt = _benefit_of_doubt(scores.table, auto.choice.kept)
    outlook = None if found is None else Outlook(found, AUTOMATIC, doubt)
    order = _largest_first(scores.table, MISLABEL_PROBABILITY)
    written = _is_written(outlook, force)
    return Pruning(
        scores,
        auto.choice,
        written,
        auto,
        MISLABEL_PROBABILITY,
        auto.rule,
        auto.reasons(),
        order,
        outlook,
        unknown,
    )


def prune_by(
    scores: Scores,
    *,
    keep: float | None = None,
    threshold: float | None = None,
    by: str = BY_FORECAST,
    stratify: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Pruning:
    """Drop a fraction of the samples by a rule, or those with the largest values of a column.

    Args:
        scores: What is decided on.
        keep: Fraction (0, 1] to keep, rounded up.
        threshold: Drop every sample whose value is at least this; one of `keep` and `threshold`.
        by: A rule of `divacli.ridge.dropping`, a column of `CRITERIA`, or `BY_FORECAST`; with a threshold a
            column, by default the derivative.
        stratify: Apply `keep` within every class.
        force: Whether the decision is written also where it does not pay.
        progress: Told of every fold.

    Raises:
        DataError: The table lacks what is decided by.
    """
    table = scores.table
    if threshold is not None and by == BY_FORECAST:
        by = CRITERIA[0]
    decisions: dict[str, Decision]
    if by in CRITERIA:
        decisions = {by: by_column(by, keep, threshold, stratify=stratify)}
    else:
        assert keep is not None  # a threshold is of a column
        rules = RULES if by == BY_FORECAST else (by,)
        decisions = {rule: by_rule(rule, keep, stratify=stratify) for rule in rules}
    judge, unknown = scores.judge(progress)
    if judge is None and by == COVERAGE:
        raise DataError(
            f"--by {COVERAGE}: {scores.missing or unknown}",
            expected="the features that the scores were made from",
            hint="give the images and the network in place of the scores, or another rule",
        )
    if by == CRITERIA[0] and scores.record is not None and scores.record.validated:
        judge, unknown = None, "these derivatives are of the loss of a --val set that the table does not hold"
    found, unknown = _forecast(scores, judge, unknown, decisions, progress)
    names = tuple(decisions)
    by = names[0] if found is None else preferred(found, names)
    seen = SeenInTable(scores, judge, scores.seed)
    decision = Choice.of(decisions[by](seen), table, seen.rows)
    if by in CRITERIA:
        order = _largest_first(table, by)
        reasons = np.where(decision.kept, "", by).astype(object)
    else:
        known = seen.evidence(MORE_LIKELY_WRONG, by)
        absent = np.setdiff1d(np.arange(len(table)), seen.rows)
        order = np.concatenate([seen.rows[dropping_order(by, known, seen.seed).numpy()], absent])
        reasons = _reasons(table, decision.kept, by)
    outlook = None if found is None else Outlook(found, by, _benefit_of_doubt(table, decision.kept))
    asked = {"keep": keep, "threshold": threshold, "stratify": stratify}
    written = _is_written(outlook, force)
    return Pruning(scores, decision, written, None, by, asked, reasons, order, outlook, unknown)


def _forecast(
    scores: Scores,
    judge: Judge | None,
    unknown: str,
    decisions: Mapping[str, Decision],
    progress: Progress,
) -> tuple[Forecast | None, str]:
    """The forecast of some decisions, or the reason why there is none."""
    if judge is None:
        return None, unknown
    outlying = torch.zeros(len(scores.table), dtype=torch.bool)
    if OUTLIER_SCORE in scores.table:
        outlying = torch.from_numpy(outliers(scores.table).copy())
    try:
        return judge.forecast(without_fold(judge, outlying, decisions), progress), ""
    except SolveError as error:
        return None, error.got


def _is_written(outlook: Outlook | None, force: bool) -> bool:
    return force or outlook is None or outlook.pays


def _benefit_of_doubt(table: pd.DataFrame, kept: np.ndarray) -> float:
    """1 where most of the samples that go have a label that is called wrong."""
    if MISLABEL_PROBABILITY not in table or kept.all():
        return 0.0
    wrong = table[MISLABEL_PROBABILITY].to_numpy(float)[~kept] > MORE_LIKELY_WRONG
    return float(2 * wrong.sum() >= len(wrong))


def _reasons(table: pd.DataFrame, kept: np.ndarray, rule: str) -> np.ndarray:
    """Why each sample is dropped, (n,) text: "label", "outlier", or the rule; "" for those that stay."""
    wrong = table[MISLABEL_PROBABILITY].to_numpy(float) > MORE_LIKELY_WRONG
    reasons = np.where(wrong, "label", np.where(outliers(table), "outlier", rule)).astype(object)
    reasons[kept] = ""
    return reasons


def _largest_first(table: pd.DataFrame, column: str) -> np.ndarray:
    """Row numbers by descending values of a column, ties by path."""
    return np.lexsort((table["path"].to_numpy(str), -table[column].to_numpy(float)))
