"""What a decision does to the error on new samples: closed-form K-fold of the whole procedure.

A fold leaves the samples altogether. The decision is made anew by the others, a head is fitted to what it
leaves, with a ridge of its own, and the fold, which had no part in any of this, is predicted. So are the
rivals: the head of all samples, and the head of a random choice. All heads meet the same folds, so their
errors are compared sample by sample.

A given label may be wrong, and then speaks against the better head. So each sample of a fold counts by the
probability that its label is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.parallel import world
from divacli.ridge.fit.moments import Moments, moments
from divacli.ridge.fit.passes import look
from divacli.ridge.fit.scaling import Scaling
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.derivative import loo_derivative, validation_derivative
from divacli.ridge.leave_out.leave_one_out import loo_predictions
from divacli.ridge.leave_out.losses import Loss
from divacli.ridge.leave_out.ridge_search import RidgeSearch
from divacli.ridge.weights.kfold import drawn, without_fold
from divacli.ridge.weights.problem import Problem, predictions

NOTHING, RANDOM = "nothing", "random"
"""Rivals of every decision: all samples as they are, and a random choice of the same size."""

FOLDS = 5


_KEPT_BYTES = 1 << 29
"""Features that are held in memory for the folds, at the most; larger sets are read again."""

_CHANCE = 1.0
"""Standard errors by which a head has to be better than naming the most frequent class."""

_DEVIATIONS = 1.96
"""Standard errors to either side of a 95 % interval."""

_WIDER = 1.2
"""By how much standard errors are larger than the draw of the samples says. Folds train on samples that they
share, trust in labels is an estimate, and people train other heads than this one. Chosen by the coverage of
intervals in `benchmarks.pays`."""


@dataclass(frozen=True, eq=False)
class TrainingWeights:
    """What a head is trained on.

    Attributes:
        weights: (n,) float64 >= 0, one a sample of the task; 0 is absent.
        labels: (n,) int64, or None for the task's own.
    """

    weights: Tensor
    labels: Tensor | None = None

    def __eq__(self, other: object) -> bool:
        """Whether the same head is trained."""
        if not isinstance(other, TrainingWeights) or (self.labels is None) != (other.labels is None):
            return False
        same = torch.equal(self.weights, other.weights)
        return same and (
            self.labels is None or other.labels is None or torch.equal(self.labels, other.labels)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Rest:
    """The samples without a fold, on which a decision is made anew.

    Attributes:
        problem: The whole problem; the fold's samples have weight and validation mask 0.
        inside: (n,) bool, which of the judged samples are the fold's.
        fit: The head of all samples that are here, at their own ridge.
        seed: Of whatever the decision draws at random; another one in each fold.
    """

    problem: Problem
    inside: Tensor
    fit: RidgeFit
    seed: int
    _moments: Moments = field(repr=False)
    _ridges: RidgeSearch = field(repr=False)

    @property
    def task(self) -> RidgeTask:
        """The training samples, those of the fold with weight 0."""
        return self.problem.task

    @cached_property
    def present(self) -> Tensor:
        """(n,) bool, the training samples that are here."""
        return self.task.weights > 0

    @cached_property
    def rows(self) -> Tensor:
        """(m,) int64, the numbers of those that are here."""
        return self.present.nonzero()[:, 0]

    @cached_property
    def predictions(self) -> Tensor:
        """(m, k) float64, each of `rows` left out of the head."""
        return loo_predictions(self.task, self.fit, self.rows)

    @cached_property
    def leverage(self) -> Tensor:
        """(m,) float64, of each of `rows`: `z A^-1 z'`."""
        fit, found = self.fit.to(self.task.dtype), torch.zeros(len(self.rows), dtype=torch.float64)

        def visit(batch: Batch) -> None:
            found[batch.rows] = fit.project(batch.features).square().sum(dim=1).double().cpu()

        look(_alone(self.task, self.rows), visit)
        return world().merged(found)

    def derivative(self, loss: Loss) -> Tensor:
        """(m,) float64 `dL/d alpha` of each of `rows`, positive = harmful.

        Args:
            loss: The leave-one-out loss, or that of the validation samples that are not in the fold.
        """
        if self.problem.validation is None:
            return loo_derivative(self.task, self.fit, loss).derivative[self.rows]
        return validation_derivative(self.task, self.problem.validation, self.fit, loss)[0][self.rows]

    def trained(self, training: TrainingWeights) -> RidgeTask:
        """The samples with other weights or labels."""
        labels = self.task.labels if training.labels is None else training.labels
        return replace(self.task, weights=training.weights, labels=labels)

    def head(self, training: TrainingWeights) -> RidgeFit:
        """The head of other weights or labels, its ridge near the one of all samples.

        Raises:
            SolveError: No sample has a positive weight.
        """
        task, trained = self.task, self.trained(training)
        labels = trained.labels
        moved = (training.weights != task.weights) | ((labels != task.labels) & (training.weights > 0))
        rows = moved.nonzero()[:, 0]
        if 2 * len(rows) <= int((training.weights > 0).sum()):
            # What changes is taken out and put back in: fewer samples are read.
            shift = self._moments.shift
            sums = self._moments - moments(_alone(task, rows), shift) + moments(_alone(trained, rows), shift)
        else:
            sums = moments(_alone(trained, (training.weights > 0).nonzero()[:, 0]))
        return self._ridges.fit(trained, sums, self.fit.ridge)


Decide = Callable[[Rest], Mapping[str, TrainingWeights]]
"""Makes a decision, and those of its rivals that are drawn, without a fold."""


@dataclass(frozen=True)
class Change:
    """By how much the error on new samples changes.

    Attributes:
        mean: Of the error, between -1 and 1; negative is better.
        se: Its standard error.
        low: Lower end of the interval that holds the change on as many new samples in 95 %.
        high: Its upper end. The new samples are a draw of their own, so it is wider by the square root of
            two than an interval of the mean.
    """

    mean: float
    se: float

    @property
    def low(self) -> float:
        """See the attribute."""
        return self.mean - _DEVIATIONS * math.sqrt(2) * self.se

    @property
    def high(self) -> float:
        """See the attribute."""
        return self.mean + _DEVIATIONS * math.sqrt(2) * self.se


@dataclass(frozen=True)
class Forecast:
    """Errors of several heads on samples that had no part in them.

    Attributes:
        wrong: (m,) float64 for each head, 1 where a sample is predicted as another class than its label; of
            one that stays in all folds, the share of these in which it is.
        share: (m,) float64 of each sample in the mean; they sum up to 1.
        groups: (m,) int64 numbers of the groups that the samples are drawn in, or None.
        missed: Share of given labels that the head of all samples misses, trusted or not.
        guessing: Share that is missed by always naming the most frequent class.
        informed_below: Share below which `missed` is less than that by more than chance.
    """

    wrong: Mapping[str, Tensor]
    share: Tensor
    groups: Tensor | None = None
    missed: float = 0.0
    guessing: float = 1.0
    informed_below: float = 1.0

    def error(self, name: str) -> float:
        """Expected share of wrong predictions on new samples."""
        return float(self.share @ self.wrong[name])

    def change(self, name: str, rival: str = NOTHING) -> Change:
        """The error of a head minus that of a rival.

        Heads that agree on every sample may differ on the next one: the standard error is that of two
        disagreements more, one in favour of each (after Agresti and Min 2005), times `_WIDER`.
        """
        more = self.wrong[name] - self.wrong[rival]
        mean = float(self.share @ more)
        parts = self.share * (more - mean)
        if self.groups is not None:
            number = torch.unique(self.groups, return_inverse=True)[1]
            parts = torch.zeros(int(number.max()) + 1, dtype=torch.float64).index_add_(0, number, parts)
        variance = float(parts.square().sum()) + 2 * float(self.share.square().sum()) ** 2
        return Change(mean, _WIDER * math.sqrt(variance))


def forecast(
    problem: Problem,
    decide: Decide,
    trust: Tensor,
    *,
    order: Tensor | None = None,
    stays: Tensor | None = None,
    counted: Tensor | None = None,
    fixed_ridge: bool = False,
    n_folds: int = FOLDS,
    seed: int = 0,
    judged: Callable[[], None] = lambda: None,
) -> Forecast:
    """Forecast the error on new samples of what a decision leaves, beside that of all samples.

    Args:
        problem: The samples and who judges them. With a separate validation set its samples are dealt out to
            the folds, and the training samples are all there in each.
        decide: Called once a fold. What it returns is named; `NOTHING` is added.
        trust: (n,) float64 in [0, 1], the probability that the label of each judged sample is right.
        order: (n,) row numbers of the training samples in an order that does not depend on how they are
            stored; by default that of the problem, or the rows' own where a validation set has it.
        stays: (n,) bool, training samples that leave with no fold; by default none. Those of them that are in
            the validation mask judge all folds, each left out of the head in turn.
        counted: (n,) bool, training samples whose loss a head's ridge is chosen by; by default those in the
            validation mask, so that a transformed copy has no say.
        fixed_ridge: Whether every head has the problem's ridge, and not its own optimum near it.
        n_folds: K.
        seed: Of the folds, and of what is drawn in them.
        judged: Called after each fold.

    Raises:
        SolveError: Too few samples for folds, or weights that are all zero.
    """
    problem = _in_memory(problem)
    if order is None:
        order = problem.order if problem.validation is None else torch.arange(len(problem.task))
    ridges = RidgeSearch(order, fixed_ridge, problem.task.validation_mask > 0 if counted is None else counted)
    stays = None if problem.validation is not None else stays
    parts, rows = drawn(problem, n_folds, seed, stays=stays)
    remain = torch.zeros(0, dtype=torch.int64)
    if stays is not None:
        remain = rows[stays[rows] & (problem.task.weights[rows] > 0)].sort().values
        rows = rows[~stays[rows]]
    # In the order of the samples, so that sums do not hang on how the rows were drawn.
    rows = torch.cat([rows.sort().values, remain])
    whole = moments(problem.task)
    labels = problem.judged.labels[rows]
    wrong: dict[str, Tensor] = {}
    for number, inside in enumerate(parts):
        without = without_fold(problem, inside)
        sums = whole
        if problem.validation is None:
            sums = whole - moments(_alone(problem.task, inside.nonzero()[:, 0]), whole.shift)
        fit = ridges.fit(without.task, sums, problem.ridge)
        rest = Rest(without, inside, fit, seed + number, sums, ridges)
        mine = inside[rows].nonzero()[:, 0]
        decisions = decide(rest)
        everything = TrainingWeights(without.task.weights)
        found: dict[str, tuple[TrainingWeights, Tensor]] = {}
        for name, training in {NOTHING: everything, **decisions}.items():
            # Rules often agree: where all that goes is called wrong, say.
            twin = next((missed for other, missed in found.values() if other == training), None)
            if twin is None:
                head = fit if name == NOTHING else rest.head(training)
                outputs = predictions(problem.judged, head, rows[mine])
                if len(remain):
                    outputs = torch.cat([outputs, _left_out(rest.trained(training), head, remain)])
                places = torch.cat([mine, torch.arange(len(rows) - len(remain), len(rows))])
                twin = (outputs.argmax(dim=1) != labels[places]).double()
            found[name] = training, twin
        for name, (_, part) in found.items():
            known = wrong.setdefault(name, torch.zeros(len(rows), dtype=torch.float64))
            known[mine] = part[: len(mine)]
            # Those that leave with no fold are judged in each.
            known[len(rows) - len(remain) :] += part[len(mine) :] / len(parts)
        judged()
    share = (problem.judged.validation_mask * trust)[rows]
    if not float(share.sum()) > 0:
        raise SolveError(
            "no sample has a label that can be trusted",
            expected="labels by which a head can be judged",
            hint="give a validation set with --val",
        )
    groups = None if problem.judged.groups is None else problem.judged.groups[rows]
    mask = problem.judged.validation_mask[rows]
    mask = mask / mask.sum()
    guessing = 1 - float(torch.bincount(labels, mask).max())
    spread = math.sqrt(float(mask.square().sum()) * max(guessing * (1 - guessing), 0.0))
    return Forecast(
        wrong,
        share / share.sum(),
        groups,
        float(mask @ wrong[NOTHING]),
        guessing,
        guessing - _CHANCE * spread,
    )


def _left_out(task: RidgeTask, head: RidgeFit, rows: Tensor) -> Tensor:
    """Leave-one-out predictions (m, k) float64 of rows (m,), ascending; only their groups are looked at."""
    if task.groups is None:
        return loo_predictions(task, head, rows)
    whole = torch.isin(task.groups, task.groups[rows]).nonzero()[:, 0]
    return loo_predictions(task.select(whole), head, torch.searchsorted(whole, rows))


def _alone(task: RidgeTask, rows: Tensor) -> RidgeTask:
    """Some samples, for sums that do not care for groups."""
    return replace(task.select(rows), groups=None)


def _in_memory(problem: Problem) -> Problem:
    """The problem with its features in memory where there is room: they are read again in each fold."""
    task = problem.task
    width = torch.finfo(task.dtype).bits // 8
    # Processes that share the work have a part of the batches each.
    if world().size > 1 or len(task) * task.n_features * width > _KEPT_BYTES:
        return problem
    rows: list[Tensor] = []
    look(replace(task, groups=None), lambda batch: rows.append(batch.features))
    return replace(problem, task=replace(task, features=torch.cat(rows), scaling=Scaling()))
