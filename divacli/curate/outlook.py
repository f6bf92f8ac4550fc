"""What a decision should do to the error on new images, and whether it pays: the judge of every command.

`Judge` holds the samples and how their labels are trusted. It forecasts the error of what a decision leaves
by closed-form K-fold of the whole procedure (`divacli.ridge.forecast`), beside doing nothing and a random
choice. `Outlook` is its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.progress import Progress
from divacli.ridge import (
    FOLDS,
    NOTHING,
    Change,
    Decide,
    Forecast,
    Labelled,
    Loss,
    NoiseModel,
    Problem,
    Rest,
    forecast,
)


@dataclass(frozen=True)
class Outlook:
    """The forecast of a decision.

    Attributes:
        forecast: Errors of the decision and its rivals.
        chosen: The decision's name in it.
        benefit_of_doubt: Standard errors that the error may rise by and the decision still counts as one that
            pays: there is other evidence for it.
    """

    forecast: Forecast
    chosen: str
    benefit_of_doubt: float = 0.0

    @property
    def change(self) -> Change:
        """The decision's error minus that of doing nothing."""
        return self.forecast.change(self.chosen)

    @property
    def pays(self) -> bool:
        """Whether the forecast is no worse than doing nothing."""
        return self.change.mean <= self.benefit_of_doubt * self.change.se

    def as_dict(self) -> dict[str, Any]:
        """For JSON: errors as shares; a change is the error minus that of doing nothing."""
        names = list(self.forecast.wrong)
        return {
            "chosen": self.chosen,
            "pays": self.pays,
            "error": {name: self.forecast.error(name) for name in names},
            "change": {
                name: {**asdict(change), "low": change.low, "high": change.high}
                for name in names
                if name != NOTHING
                for change in [self.forecast.change(name)]
            },
        }


@dataclass(frozen=True)
class Judge:
    """The samples that a decision is about, and how it is judged.

    Attributes:
        problem: The samples at their weights and the ridge of all of them; who judges.
        order: (n,) row numbers of the training samples sorted by path.
        noise: How their labels come about.
        loss: Of a left-out prediction, as it stands in the table of scores.
        trust: Probability that each judged sample's label is right.
        fixed_ridge: Whether a ridge was given.
        seed: Of folds and random choices.
    """

    problem: Problem
    order: Tensor
    noise: NoiseModel
    loss: Loss
    trust: Tensor
    fixed_ridge: bool
    seed: int

    @cached_property
    def place(self) -> Tensor:
        """(n,) int64, where each training sample stands in the order of the paths."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self.order))
        return place

    def wrong(self, rest: Rest) -> Tensor:
        """Probability (m,) that the label of each of `rest.rows` is wrong, as seen without a fold."""
        return self.noise.wrong(Labelled(rest.predictions, rest.task.labels[rest.rows]))

    def losses(self, rest: Rest) -> Tensor:
        """Leave-one-out loss (m,) of each of `rest.rows`, as seen without a fold."""
        labels = torch.nn.functional.one_hot(rest.task.labels[rest.rows], rest.task.n_classes)
        return self.loss.value(rest.predictions, labels.to(rest.predictions))

    def forecast(self, decide: Decide, progress: Progress) -> Forecast:
        """Forecast the errors of what a decision leaves, and of its rivals.

        Args:
            decide: Makes the decision without a fold.
            progress: Told of every fold.

        Raises:
            SolveError: Too few samples for folds.
        """
        with progress("judging the decision by folds", FOLDS) as advance:
            found = forecast(
                self.problem,
                decide,
                self.trust,
                order=self.order,
                fixed_ridge=self.fixed_ridge,
                seed=self.seed,
                judged=lambda: advance(1),
            )
        return informed(found)


def informed(found: Forecast) -> Forecast:
    """The forecast, unless the features say nothing of the labels.

    Labels are trusted as far as the head of all samples agrees with them. Where it agrees by chance, the
    labels that judge are those that agree by chance.

    Raises:
        SolveError: The head of all samples misses as many labels as naming the most frequent class does.
    """
    if found.guessing > 0 and found.missed >= found.informed_below:
        raise SolveError(
            f"the features hardly tell the labels apart: {found.missed:.0%} of the left-out labels are "
            f"missed, and {found.guessing:.0%} by always naming the most frequent class",
            expected="features that predict the labels better than that",
            hint="check that labels and images belong together, or use another network",
        )
    return found


def preferred(found: Forecast, names: Sequence[str]) -> str:
    """The name that comes first, unless a later one is better by more than a standard error.

    Args:
        found: Errors.
        names: In the order in which they are trusted without a forecast.
    """
    chosen = names[0]
    for name in names[1:]:
        change = found.change(name, chosen)
        if change.mean < -change.se:
            chosen = name
    return chosen


def kept_weights(rest: Rest, kept: Tensor) -> Tensor:
    """Weights (n,) of all samples where some of `rest.rows` stay, (m,) bool."""
    weights = torch.zeros_like(rest.task.weights)
    rows = rest.rows[kept]
    weights[rows] = rest.task.weights[rows]
    return weights


def random_kept(rest: Rest, place: Tensor, n_dropped: int) -> Tensor:
    """Which of `rest.rows` stay, (m,) bool, where so many are dropped at random.

    Args:
        rest: The samples without a fold.
        place: (n,) as of `Judge`.
        n_dropped: How many.
    """
    by_place = torch.argsort(place[rest.rows])
    shuffled = torch.randperm(len(by_place), generator=torch.Generator().manual_seed(rest.seed))
    kept = torch.ones(len(by_place), dtype=torch.bool)
    kept[by_place[shuffled[:n_dropped]]] = False
    return kept
