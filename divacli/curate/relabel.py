"""Correct the labels that are more likely wrong than right, and say how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.outlook import Judge, Outlook, kept_weights, random_kept
from divacli.curate.score_table import Scores
from divacli.curate.wrong_labels import (
    BALANCED,
    LIKELY,
    MORE_LIKELY_WRONG,
    Expectation,
    Threshold,
    doubtful,
    errors_first,
    mislabelled,
    outliers,
    require_judged,
    threshold_of,
)
from divacli.errors import SolveError, listed
from divacli.manifest.columns import (
    JUDGED_COLUMNS,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
    PREDICTED_LABEL,
    SCORE_COLUMNS,
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
)
from divacli.manifest.labels import with_labels
from divacli.progress import Progress, silent
from divacli.results.names import CHANGES, FAILED, RELABEL, RELABELLED
from divacli.results.result import Target
from divacli.ridge import RANDOM, Change, Decide, Kept, Rest, TrainingWeights, predictable

FILES = (RELABELLED, CHANGES, f"{RELABEL}.json")
"""What is always written."""

CORRECTING, DROPPING = "correcting", "dropping"
"""The decision, and its rival: the samples whose label would change are left out instead."""

CHANGE_COLUMNS = (
    "path",
    "label",
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
    MISLABEL_PROBABILITY,
    "action",
    PREDICTED_LABEL,
)
"""First columns of the table of changes, in order; the other scores follow, then the user's own columns."""

ACTIONS = ("corrected", "unclear", "outlier")
"""What becomes of a label that is called wrong: it is replaced by the suggested one; or it stays, because no
single class is more probable than the given one; or because the sample is like nothing else in the set, so
that no class may be right for it."""

BY_THRESHOLD = "threshold"
"""What `relabel.json` calls the decision by a threshold that was given."""

NOT_WRITTEN = "not written"
"""The action in place of "corrected" where correcting does not pay: the label stays."""

_PAIRS = 10

_BENEFIT_OF_DOUBT = 2.0
"""Standard errors that a forecast may be worse by. Forecasts are hard on corrections (`benchmarks.pays`)."""


@dataclass(frozen=True)
class RelabelResult:
    """Corrected labels.

    Attributes:
        table: All samples in their own order with corrected labels and without scores. `given_label` is the
            label before any correction, in every row.
        changes: Scores of the samples whose label is called wrong, the most probable error first, with
            `action`; `label` is the one before.
        summary: What `relabel.json` holds of the decision; `emptied` are the classes that lost their last
            sample.
    """

    table: pd.DataFrame
    changes: pd.DataFrame
    summary: dict[str, Any]


def relabel(table: pd.DataFrame, threshold: Threshold = LIKELY, budget: int | None = None) -> RelabelResult:
    """Replace labels that are called wrong by the suggested ones, where these are more probable.

    Args:
        table: Scores with `JUDGED_COLUMNS`.
        threshold: Probability in [0, 1) above which a label is called wrong, or how to find it.
        budget: Labels that are called wrong at the most, the most probable errors first.

    Raises:
        DataError: The scores lack a column that labels are judged by, or a value in it.
    """
    require_judged(table, (MISLABEL_PROBABILITY, SUGGESTED_LABEL, SUGGESTED_PROBABILITY, OUTLIER_SCORE))
    wrong = table[MISLABEL_PROBABILITY].to_numpy(float)
    suggested = table[SUGGESTED_PROBABILITY].to_numpy(float)
    given = table["label"].to_numpy(object)
    above = threshold_of(wrong, threshold)
    called, actions = _decided(table, outliers(table), above, budget)
    corrected = called & (actions == ACTIONS[0])
    labels = np.where(corrected, table[SUGGESTED_LABEL].to_numpy(object), given)

    order = errors_first(table)
    changes = table.assign(action=actions).iloc[order[called[order]]].reset_index(drop=True)
    first = [*CHANGE_COLUMNS, *(name for name in (*SCORE_COLUMNS, *JUDGED_COLUMNS) if name in changes)]
    columns = list(dict.fromkeys([*first, *changes]))
    pairs = changes[changes["action"] == ACTIONS[0]].value_counts(["label", SUGGESTED_LABEL], sort=False)
    # Sorted by the pair already; a stable sort keeps that order among equals.
    pairs = pairs.sort_values(ascending=False, kind="stable")
    summary = {
        "n_samples": len(table),
        "n_corrected": int(corrected.sum()),
        "n_unclear": int((called & (actions == ACTIONS[1])).sum()),
        "n_outliers": int((called & (actions == ACTIONS[2])).sum()),
        "decide": threshold if isinstance(threshold, str) else BY_THRESHOLD,
        "threshold": above,
        "budget": budget,
        "n_above_threshold": int(mislabelled(table, above).sum()),
        "mislabelled": Expectation.of(wrong, called).as_dict(),
        "expected_right": float(suggested[corrected].mean()) if corrected.any() else None,
        "noise_rate": float(wrong.mean()),
        "noise_rate_after": float(np.where(corrected, 1 - suggested, wrong).mean()),
        "corrections": [
            {"given": one, "suggested": other, "n": int(n)} for (one, other), n in pairs.head(_PAIRS).items()
        ],
        "emptied": sorted(set(given) - set(labels)),
    }
    return RelabelResult(with_labels(table, labels), changes[columns], summary)


@dataclass(frozen=True)
class Relabelling:
    """Labels that are corrected, and what that does to new images.

    Attributes:
        scores: What was decided on.
        decision: Which labels to correct.
        written: Whether they are corrected; else all labels stay, for correcting does not pay.
        outlook: What correcting should do to the error on new images; None where that is not known, or no
            label is to be corrected.
        unknown: Why it is not known.
    """

    scores: Scores
    decision: RelabelResult
    written: bool
    outlook: Outlook | None
    unknown: str

    @property
    def n_chosen(self) -> int:
        """Labels that the decision corrects, whether or not that is written."""
        return int(self.decision.summary["n_corrected"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """All samples in their own order, without scores, with their labels from now on."""
        if self.written:
            return self.decision.table
        table = self.scores.table
        return with_labels(table, table["label"].to_numpy(object))

    @cached_property
    def changes(self) -> pd.DataFrame:
        """Labels that are called wrong; `NOT_WRITTEN` where one would be corrected and is not."""
        changes = self.decision.changes
        if self.written:
            return changes
        return changes.assign(action=changes["action"].replace(ACTIONS[0], NOT_WRITTEN))

    @property
    def versus_dropping(self) -> Change | None:
        """The error of corrected labels minus that of the same samples left out."""
        return None if self.outlook is None else self.outlook.forecast.change(CORRECTING, DROPPING)

    @property
    def summary(self) -> dict[str, Any]:
        """What `relabel.json` holds."""
        found = dict(self.decision.summary)
        if not self.written:
            found |= {"n_corrected": 0, "noise_rate_after": found["noise_rate"], "emptied": []}
        first = {"n_samples": found.pop("n_samples"), "n_corrected": found.pop("n_corrected")}
        forecast = None
        if self.outlook is not None:
            change = self.versus_dropping
            assert change is not None  # there is a forecast
            forecast = {**self.outlook.as_dict(), "versus_dropping": {"mean": change.mean, "se": change.se}}
        return {
            **first,
            "n_chosen": self.n_chosen,
            "written": "choice" if self.written else "given labels",
            **found,
            **self.scores.about,
            "forecast": forecast,
        }

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        doubt = _doubt(self.decision)
        if doubt is not None:
            yield doubt
        emptied = self.summary["emptied"]
        if emptied:
            yield (
                f"the corrections leave no sample with the label {listed(emptied)}: look at them in the "
                "table of changes before you use the result"
            )
        if self.unknown:
            yield f"no forecast was made: {self.unknown}"
        if not self.written:
            yield (f"{self.n_chosen:,} labels would be corrected and are not; --force writes the corrections")

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        if self.scores.failed is not None:
            target.table(FAILED, self.scores.failed, self.scores.origin, part=True)
        target.table(CHANGES, self.changes, self.scores.origin)
        target.json(f"{RELABEL}.json", self.summary)
        target.table(RELABELLED, self.table, self.scores.origin, main=True, part=True, relabelled=True)


def relabel_scored(
    scores: Scores,
    threshold: Threshold = LIKELY,
    budget: int | None = None,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Relabelling:
    """Correct labels as `relabel` does, where that pays by the forecast.

    Other evidence speaks for a correction as well, so it also pays where the error rises by less than
    `_BENEFIT_OF_DOUBT` standard errors.

    Args:
        scores: What is decided on.
        threshold: As of `relabel`.
        budget: As of `relabel`.
        force: Whether labels are corrected also where that does not pay.
        progress: Told of every fold.

    Raises:
        DataError: As `relabel`.
    """
    decision = relabel(scores.table, threshold, budget)
    if not decision.summary["n_corrected"]:
        return Relabelling(scores, decision, True, None, "")
    judge, unknown = scores.judge(progress)
    outlook = None
    if judge is not None:
        share = None if budget is None else budget / len(scores.table)
        try:
            found = judge.forecast(_without_fold(judge, scores.table, threshold, share), progress)
            outlook = Outlook(found, CORRECTING, _BENEFIT_OF_DOUBT)
        except SolveError as error:
            unknown = error.got
    # Where nothing judges it, a decision that calls most labels wrong is left to people.
    written = force or (outlook.pays if outlook is not None else _doubt(decision) is None)
    return Relabelling(scores, decision, written, outlook, unknown)


def _doubt(decision: RelabelResult) -> str | None:
    """What to tell whoever is about to act on most of the labels, or None.

    The balanced decision lists most labels where none stands out. That is no reason to doubt the features.
    """
    called, n = decision.changes[MISLABEL_PROBABILITY], len(decision.table)
    if decision.summary["decide"] == BALANCED and (called > MORE_LIKELY_WRONG).sum() <= n / 2:
        return None
    return doubtful(len(called), n)


def _decided(
    table: pd.DataFrame, odd: np.ndarray, threshold: float, budget: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are called wrong, (n,) bool, and for each what becomes of it then, (n,) of `ACTIONS`.

    Args:
        table: With path, mislabel_probability and suggested_probability.
        odd: (n,) bool, the outliers.
        threshold: Probability above which a label is called wrong.
        budget: As of `relabel`.
    """
    wrong = table[MISLABEL_PROBABILITY].to_numpy(float)
    suggested = table[SUGGESTED_PROBABILITY].to_numpy(float)
    actions = np.where(suggested > 1 - wrong, ACTIONS[0], ACTIONS[1]).astype(object)
    actions[odd] = ACTIONS[2]
    return mislabelled(table, threshold, budget), actions


def _without_fold(judge: Judge, table: pd.DataFrame, threshold: Threshold, share: float | None) -> Decide:
    """The decision as the samples without a fold make it, and its rivals.

    Args:
        judge: What it is judged by.
        table: Scores of all samples; labels are judged anew.
        threshold: As of `relabel`; if it is to be found, then from the samples without the fold.
        share: Of the samples, whose labels may be called wrong at the most.
    """
    paths, odd = table["path"].to_numpy(object), outliers(table)

    def decide(rest: Rest) -> dict[str, TrainingWeights]:
        rows = rest.rows
        labels = rest.task.labels[rows]
        probability = judge.noise.posterior(rest.predictions, labels)
        given = probability.gather(1, labels[:, None])[:, 0]
        # Nobody can say what the only one of its class looks like.
        given[~predictable(rest.task)[rows]] = 1
        other = probability.scatter(1, labels[:, None], -1.0).max(dim=1)
        wrong = (1 - given).numpy()
        seen = pd.DataFrame(
            {
                "path": paths[rows.numpy()],
                MISLABEL_PROBABILITY: wrong,
                SUGGESTED_PROBABILITY: other.values.numpy(),
            }
        )
        budget = None if share is None else round(share * len(rows))
        called, actions = _decided(seen, odd[rows.numpy()], threshold_of(wrong, threshold), budget)
        chosen = torch.from_numpy(called & (actions == ACTIONS[0]))
        at_random = ~random_kept(rest, judge.place, int(chosen.sum()))

        def corrected(which: torch.Tensor) -> TrainingWeights:
            changed = rest.task.labels.clone()
            changed[rows[which]] = other.indices[which]
            return TrainingWeights(rest.task.weights, changed)

        return {
            CORRECTING: corrected(chosen),
            DROPPING: TrainingWeights(
                kept_weights(rest, Kept.of(~chosen, labels, judge.place[rows].argsort()).stays)
            ),
            RANDOM: corrected(at_random),
        }

    return decide
