"""All that `diva prune` finds out of scores: what stays, what goes, the refit, and what to warn of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from divacli.curate.decision import doubtful
from divacli.curate.files import ResultFiles
from divacli.curate.provenance import left_out
from divacli.curate.prune import (
    Automatic,
    Choice,
    Prediction,
    called_good,
    choose_automatically,
    choose_kept,
    split,
)
from divacli.curate.record import Scores
from divacli.embed.progress import Progress, silent

FILES = ("kept", "dropped", "prune.json")
"""What is always written."""

_REFIT = "refitting without what goes"


@dataclass(frozen=True)
class Pruning:
    """Samples that stay and samples that go.

    Attributes:
        scores: What was decided on.
        choice: The decision.
        auto: How it was made where no fraction or value was given.
        by: The column that it was made by.
        rule: What was asked for, for JSON.
        prediction: What a refit without those that go predicts; None without features.
    """

    scores: Scores
    choice: Choice
    auto: Automatic | None
    by: str
    rule: dict[str, Any]
    prediction: Prediction | None

    @cached_property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The samples that stay, and those that go, worst first."""
        table = self.scores.table
        judged = table if self.auto is None else table.assign(reason=self.auto.reasons())
        return split(judged, self.choice.kept, self.by)

    @property
    def summary(self) -> dict[str, Any]:
        """What `prune.json` holds."""
        kept, dropped = self.tables
        return {
            "n_kept": len(kept),
            "n_dropped": len(dropped),
            "by": self.by,
            **self.rule,
            **self.scores.about,
            "prediction": None if self.prediction is None else self.prediction.as_dict(),
        }

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        auto, prediction, scores = self.auto, self.prediction, self.scores
        doubt = None if auto is None else doubtful(int(auto.mislabelled.sum()), len(scores.table))
        if doubt is not None:
            yield doubt
        good = int((called_good(scores.table) & ~self.choice.kept).sum())
        if auto is None and self.rule["keep"] is not None and good:
            yield (
                f"{good:,} of the {len(self.tables[1]):,} dropped samples are useful by their derivative, "
                "and their labels more likely right than wrong: --keep auto drops none of these"
            )
        if prediction is None:
            yield (
                f"no refit was made: {scores.missing}. The decision is complete; to see what it predicts, "
                "give the images and the network instead"
            )
        elif auto is None and prediction.worse:
            yield (
                f"without the dropped samples the {left_out(scores.about)} loss over all original samples "
                f"rises by {prediction.change:.2g} (± {prediction.change_se:.2g}) from "
                f"{prediction.before.loss[0]:.4g}: keeping everything is better by that measure; drop fewer"
            )
        elif auto is not None and prediction.worse_for_kept:
            yield (
                f"without the dropped samples the {left_out(scores.about)} loss of those that stay rises "
                f"from {prediction.before.loss[1]:.4g} to {prediction.after.loss[1]:.4g}: look at "
                "dropped.csv, and use a higher --threshold or --budget if these are good"
            )

    def write(self, target: ResultFiles) -> None:
        """Write all tables and the summary."""
        kept, dropped = self.tables
        if self.scores.failed is not None:
            target.table("failed", self.scores.failed, self.scores.origin, part=True)
        target.table("dropped", dropped, self.scores.origin, part=True)
        target.json("prune.json", self.summary)
        target.table("kept", kept, self.scores.origin, main=True, part=True)


def prune_automatically(
    scores: Scores, threshold: float | None = None, budget: int | None = None, *, progress: Progress = silent
) -> Pruning:
    """Drop labels that are more likely wrong than right, and outliers; see `choose_automatically`."""
    auto = choose_automatically(scores.table, threshold, budget)
    with progress(_REFIT, 0):
        prediction = scores.predict(auto.choice.kept)
    return Pruning(scores, auto.choice, auto, "mislabel_probability", auto.rule, prediction)


def prune_by(
    scores: Scores,
    *,
    keep: float | None = None,
    threshold: float | None = None,
    by: str = "derivative",
    stratify: bool = False,
    progress: Progress = silent,
) -> Pruning:
    """Drop the samples with the largest values; see `choose_kept`."""
    choice = choose_kept(scores.table, keep=keep, threshold=threshold, by=by, stratify=stratify)
    rule = {"keep": keep, "threshold": threshold, "stratify": stratify}
    with progress(_REFIT, 0):
        prediction = scores.predict(choice.kept)
    return Pruning(scores, choice, None, by, rule, prediction)
