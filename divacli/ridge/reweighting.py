"""Better sample weights: projected steps against the dataset derivative, chosen by closed-form K-fold.

A step is `alpha <- max(0, alpha - size * D / mean |D|)`, with `D` the exact derivative at the weights before
it, and the weights' sum is kept. How far to go is decided without a validation set by K-fold over the *whole*
procedure: a fold leaves the training sum and the validation loss, derivatives and steps come from the other
folds, and the fold, which has had no part in them, judges. (Leaving a fold out of the validation loss alone
would not do: the weights around its samples would still have been set in their presence.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.calibration import RobustCrossEntropy, calibrate, calibration_rows
from divacli.ridge.derivative import ValidationResult, loo_derivative, validation_derivative
from divacli.ridge.folds import split_in_folds
from divacli.ridge.leave_one_out import LooResult, loo_predictions
from divacli.ridge.losses import Loss, SquaredLoss
from divacli.ridge.moments import Moments, moments
from divacli.ridge.spectrum import RidgeFit
from divacli.ridge.task import RidgeTask, positions

SIZES = (0.025, 0.05, 0.1, 0.2, 0.4)
"""Step sizes tried, in units of the mean absolute derivative: a weight of 1 changes by so much on average."""

SURENESS = 2.0
"""Standard errors that a gain has to exceed: some of many trials exceed one by chance."""

_ROUNDING = 1e-9
"""Relative gains below this are no gains: a step that changes nothing has them, too."""

_D = TypeVar("_D")


@dataclass(frozen=True)
class Problem:
    """What is to be improved by other sample weights.

    Attributes:
        task: The samples at their present weights, with the validation mask of the leave-one-out loss.
        ridge: lambda.
        robust: Whether the loss is the calibrated, noise-robust cross-entropy; else the squared loss.
        bias: Whether the calibration of the loss that is differentiated has class biases.
        shared: (n,) int64 number of the weight that a sample shares with others, or None for one each.
        validation: A separate validation set in place of the leave-one-out loss.
        order: (n,) row numbers (of the validation set where there is one) in the order that random draws
            follow.
    """

    task: RidgeTask
    ridge: float
    order: Tensor
    robust: bool = True
    bias: bool = True
    shared: Tensor | None = None
    validation: RidgeTask | None = None

    @property
    def judged(self) -> RidgeTask:
        """The samples whose loss counts."""
        return self.task if self.validation is None else self.validation


@dataclass(frozen=True)
class Derivative:
    """The derivative of a problem's loss at some weights.

    Attributes:
        derivative: (n,) float64 `dL/d alpha`, positive = harmful; the mean over all samples that share a
            weight, which is the projection of the derivative onto such weights.
        loss: The loss that was differentiated, calibrated at these weights.
        mean_loss: Its mean over the validation samples, weighted by the mask.
        error: Share of validation samples predicted as another class than their label, likewise.
    """

    derivative: Tensor
    loss: Loss
    mean_loss: float
    error: float


def differentiate(problem: Problem, weights: Tensor, fit: RidgeFit | None = None) -> Derivative:
    """The derivative at some weights, its loss recalibrated there.

    Args:
        problem: The problem.
        weights: (n,) float64.
        fit: The ridge solution at these weights, where it is at hand.

    Raises:
        SolveError: No sample has a positive weight, or a leverage is one.
    """
    task = replace(problem.task, weights=weights)
    fit = moments(task).fit(problem.ridge) if fit is None else fit
    loss: Loss = _calibrated(problem, task, fit) if problem.robust else SquaredLoss()
    found: LooResult | ValidationResult
    if problem.validation is None:
        result = loo_derivative(task, fit, loss)
        derivative, found = result.derivative, result.loo
    else:
        derivative, found = validation_derivative(task, problem.validation, fit, loss)
    if problem.shared is not None:
        counts = torch.bincount(problem.shared)
        sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, problem.shared, derivative)
        derivative = (sums / counts.clamp_min(1))[problem.shared]
    share = problem.judged.validation_mask / problem.judged.validation_mask.sum()
    wrong = (found.predicted != problem.judged.labels).double()
    return Derivative(derivative, loss, float(share @ found.loss), float(share @ wrong))


def stepped(weights: Tensor, derivative: Tensor, size: float, taking_part: Tensor | None = None) -> Tensor:
    """Weights (n,) after one projected step, with the same sum.

    Args:
        weights: (n,) float64 `alpha`.
        derivative: (n,) float64.
        size: In units of the mean absolute derivative.
        taking_part: (n,) bool, samples that are there at all; the weights of the others stay.

    Raises:
        SolveError: Every weight would become zero.
    """
    return _step(weights, derivative, size, taking_part).weights


@dataclass(frozen=True)
class _Step:
    """A projected step: `weights = factor * max(0, uncut)` with `uncut = old - length * derivative`."""

    weights: Tensor
    uncut: Tensor
    length: float
    factor: float


def _step(weights: Tensor, derivative: Tensor, size: float, taking_part: Tensor | None) -> _Step:
    there = torch.ones_like(weights, dtype=torch.bool) if taking_part is None else taking_part
    unit = float(derivative[there].abs().mean())
    # Weights of another scale move in proportion.
    length = size * float(weights[there].mean()) / unit if unit > 0 else 0.0
    uncut = torch.where(there, weights - length * derivative, weights)
    moved = uncut.clamp_min(0)
    left = float(moved[there].sum())
    if not left > 0:
        raise SolveError(
            f"a step of size {size:g} leaves every weight at zero",
            expected="a step that leaves some samples",
            hint="use a smaller --step-size, or auto",
        )
    factor = float(weights[there].sum()) / left
    return _Step(torch.where(there, moved * factor, weights), uncut, length, factor)


@dataclass(frozen=True)
class Trial:
    """One step size, as the folds judge it.

    Attributes:
        step: Which step, from 1.
        size: Of the step; 0 for taking none.
        loss: Mean loss of left-out samples: cross-entropy of their calibrated predictions, in nats.
        gain: By how much it is lower than without the step.
        gain_error: Standard error of the gain, from the spread over samples.
        error: Share of left-out samples predicted as another class than their label.
    """

    step: int
    size: float
    loss: float
    gain: float
    gain_error: float
    error: float


@dataclass(frozen=True)
class StepChoice:
    """What K-fold decided.

    Attributes:
        sizes: The steps to take, in order; none where no step pays.
        trials: Every size that was tried.
    """

    sizes: tuple[float, ...]
    trials: tuple[Trial, ...]


def choose_steps(
    problem: Problem,
    *,
    most: int = 3,
    sizes: Sequence[float] = SIZES,
    n_folds: int = 5,
    seed: int = 0,
    without: Tensor | None = None,
    tried: Callable[[], None] = lambda: None,
) -> StepChoice:
    """Choose how many steps to take, and how large, by closed-form K-fold of the whole procedure.

    Step after step every size is tried. The best of those is taken that lower the loss of left-out samples by
    more than `SURENESS` standard errors of that gain; where there is none the walk ends. Whichever loss is
    differentiated, the judge is the calibrated likelihood of the left-out labels: squared error would also
    count what a change of scale alone does to it.

    Args:
        problem: The problem.
        most: Steps at the most.
        sizes: To try.
        n_folds: K.
        seed: Of the random folds, balanced within classes, groups kept whole.
        without: As for `left_out`.
        tried: Called after each size.

    Raises:
        SolveError: As `differentiate`.
    """
    folds, rows = _folds(problem, n_folds, seed, without)
    return walked(problem, rows, folds, most, sizes, tried)


class Walk(Protocol[_D]):
    """One fold's walk: all that moves it comes from the other samples."""

    @property
    def inside(self) -> Tensor:
        """(n,) bool, which of the judged samples are the fold's."""

    def direction(self) -> _D:
        """What a step follows where the walk is."""

    def moved(self, direction: _D, size: float) -> Walk[_D]:
        """This walk after one step more, of a size in units of the mean absolute derivative."""

    def outputs(self) -> Tensor:
        """Predictions (m, k) float64 for the fold's rows where the walk is."""


def walked(
    problem: Problem,
    rows: Tensor,
    folds: Sequence[Walk[_D]],
    most: int,
    sizes: Sequence[float],
    tried: Callable[[], None],
) -> StepChoice:
    """Let the folds walk for as long as it pays, which is what `choose_steps` decides by.

    Args:
        problem: The problem.
        rows: (m,) of the judged samples that count, as from `drawn`.
        folds: Where their walks begin.
        most: Steps at the most.
        sizes: To try.
        tried: Called after each size.

    Raises:
        SolveError: As `differentiate`.
    """
    now = _judge(problem, rows, folds)
    taken: list[float] = []
    trials: list[Trial] = []
    for step in range(1, most + 1):
        directions = [fold.direction() for fold in folds]
        best: tuple[float, _Judgement, Sequence[Walk[_D]]] | None = None
        for size in sizes:
            moved = [fold.moved(direction, size) for fold, direction in zip(folds, directions, strict=True)]
            found = _judge(problem, rows, moved)
            gain, gain_error = now.gain_of(found)
            trials.append(Trial(step, size, found.loss, gain, gain_error, found.error))
            tried()
            sure = gain > max(SURENESS * gain_error, _ROUNDING * now.loss)
            if sure and (best is None or found.loss < best[1].loss):
                best = size, found, moved
        if best is None:
            break
        size, now, folds = best
        taken.append(size)
    return StepChoice(tuple(taken), tuple(trials))


@dataclass(frozen=True)
class LeftOut:
    """What becomes of samples that are left out.

    Attributes:
        loss: Mean loss of left-out samples: cross-entropy of their calibrated predictions, in nats.
        without: (K, n) float64, the weights that each fold's walk ends at. Its own samples have had no part
            in them, and have weight 0 there.
    """

    loss: float
    without: Tensor


def left_out(
    problem: Problem,
    sizes: Sequence[float] = (),
    *,
    n_folds: int = 5,
    seed: int = 0,
    without: Tensor | None = None,
) -> LeftOut:
    """Let each fold walk without its own samples, and judge by these.

    Args:
        problem: The problem.
        sizes: Of the steps to take.
        n_folds: K.
        seed: As for `choose_steps`.
        without: (K, n) weights to begin at, from an earlier walk of the same folds. For weights that have
            been moved already this is what keeps the judgement honest: every sample has had a say in them.
            None: the problem's weights, which nobody's label has moved.

    Raises:
        SolveError: As `differentiate`.
    """
    folds, rows = _folds(problem, n_folds, seed, without)
    for size in sizes:
        folds = [fold.moved(fold.direction(), size) for fold in folds]
    return LeftOut(_judge(problem, rows, folds).loss, torch.stack([fold.weights for fold in folds]))


def _folds(problem: Problem, n_folds: int, seed: int, without: Tensor | None) -> tuple[list[_Fold], Tensor]:
    """The folds where their walks begin, and the rows that are judged."""
    parts, rows = drawn(problem, n_folds, seed, without)
    whole = moments(problem.task)
    starts = [problem.task.weights] * len(parts) if without is None else list(without)
    folds = [_Fold(problem, inside, rows, whole, start) for inside, start in zip(parts, starts, strict=True)]
    return folds, rows


def drawn(
    problem: Problem, n_folds: int, seed: int, without: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """For each fold (n,) bool which of the judged samples are its, and the rows (m,) that are judged.

    There are no more folds than there are groups to deal out, so that none is empty.

    Args:
        problem: The problem.
        n_folds: K.
        seed: As for `choose_steps`.
        without: As for `left_out`.

    Raises:
        SolveError: Less than two groups stay when a fold leaves: none of them could be left out in turn.
    """
    judged = problem.judged
    rows = calibration_rows(problem.order, judged.validation_mask, judged.n_classes)
    groups = torch.arange(len(judged)) if judged.groups is None else judged.groups
    n_folds = min(n_folds, len(set(groups.tolist())))
    number = split_in_folds(judged.labels, problem.order, seed, n_folds, judged.groups)
    starts = [problem.task.weights] * n_folds if without is None else list(without)
    if problem.validation is None:
        stay = min(
            len(set(groups[(number != fold) & (start > 0)].tolist())) for fold, start in enumerate(starts)
        )
        if stay < 2:
            what = "samples" if judged.groups is None else "groups"
            raise SolveError(
                f"K-fold: {stay} of the {what} of positive weight would stay when a fold leaves",
                expected=f"two at least, to be left out in turn: K-fold needs three {what} or more",
                hint="give --step-size NUMBER or --val DATA; where there are three, --folds 3",
            )
    return [number == fold for fold in range(n_folds)], rows


def without_fold(problem: Problem, inside: Tensor) -> Problem:
    """The problem as if a fold's samples were not there.

    Args:
        problem: The whole problem.
        inside: (n,) bool, which of the judged samples are the fold's.
    """
    mask = torch.where(inside, 0.0, problem.judged.validation_mask)
    if problem.validation is not None:
        return replace(problem, validation=replace(problem.validation, validation_mask=mask))
    # Weight and mask zero: absent from the fit and from the loss.
    weights = torch.where(inside, 0.0, problem.task.weights)
    return replace(problem, task=replace(problem.task, weights=weights, validation_mask=mask))


class _Fold:
    """A fold's walk on the weights of samples.

    Args:
        problem: The whole problem.
        inside: (n,) bool, which of the judged samples are the fold's.
        rows: Rows of the judged samples that predictions are wanted for.
        whole: Moments of all training samples, from which the fold's are taken.
        start: (n,) float64 weights that the walk begins at; those of the fold's own samples do not count.

    Attributes:
        weights: (n,) float64 where the walk is; 0 for the fold's own samples.
    """

    def __init__(self, problem: Problem, inside: Tensor, rows: Tensor, whole: Moments, start: Tensor) -> None:
        self.inside = inside
        self._rows = rows[inside[rows]]
        self._there: Tensor | None = None
        task, shared = problem.task, problem.shared
        if problem.validation is None:
            self._there = ~inside
            if shared is not None:
                # The fold has no say in what the others share.
                shared = torch.where(inside, shared.max() + 1, shared)
        started = replace(problem, task=replace(task, weights=start), shared=shared)
        self._rest = without_fold(started, inside)
        self.weights = self._rest.task.weights
        self._moments = whole
        more = self.weights - task.weights
        # A downdate by the fold's own samples, and by whatever else weighs less than in the whole.
        self._moments = whole - self._sums((-more).clamp_min(0)) + self._sums(more.clamp_min(0))
        self._fit = self._moments.fit(problem.ridge)

    def direction(self) -> _Direction:
        """The derivative at the present weights."""
        derivative = differentiate(self._rest, self.weights, self._fit).derivative
        if self._there is not None:
            derivative = torch.where(self._there, derivative, 0.0)
        up, down = (self._sums(part.clamp_min(0)) for part in (derivative, -derivative))
        return _Direction(derivative, up, down)

    def outputs(self) -> Tensor:
        """Predictions (m, k) float64 for the fold's rows at the present weights."""
        return predictions(self._rest.judged, self._fit, self._rows)

    def moved(self, direction: _Direction, size: float) -> _Fold:
        """This walk after one step more.

        Where no weight is cut off at zero, moments are linear in the step: one pass over the samples serves
        all sizes, and each of them takes another one over what it cuts off.
        """
        step = _step(self.weights, direction.derivative, size, self._there)
        after = copy(self)
        after.weights = step.weights
        cut = self._sums((-step.uncut).clamp_min(0))
        moved = self._moments + direction.down.times(step.length) + cut - direction.up.times(step.length)
        after._moments = moved.times(step.factor)
        after._fit = after._moments.fit(self._rest.ridge)
        return after

    def _sums(self, weights: Tensor) -> Moments:
        return moments(replace(self._rest.task, weights=weights), self._moments.shift)


@dataclass(frozen=True)
class _Direction:
    """A derivative, and the moments with its positive and with its negative part as weights."""

    derivative: Tensor
    up: Moments
    down: Moments


def predictions(task: RidgeTask, fit: RidgeFit, rows: Tensor) -> Tensor:
    """Predictions (m, k) float64 on the CPU for chosen samples, which had better not be in the fit.

    Args:
        task: The samples.
        fit: A ridge solution in the same coordinates.
        rows: (m,) int64.
    """
    fit = fit.to(task.dtype)
    found = torch.empty(len(rows), task.n_classes, dtype=torch.float64)
    for part in task.slices():
        inside, places = positions(part, rows)
        if len(places):
            batch = task.batch(places + part.start)
            outputs = batch.labels - batch.targets + fit.project(batch.features) @ fit.coef
            found[inside] = outputs.double().cpu()
    return found


@dataclass(frozen=True)
class _Judgement:
    """Losses of the judged rows, each left out."""

    losses: Tensor
    share: Tensor
    error: float

    @property
    def loss(self) -> float:
        return float(self.share @ self.losses)

    def gain_of(self, other: _Judgement) -> tuple[float, float]:
        """By how much the other's loss is lower, and the standard error of that: the samples are the same."""
        lower = self.losses - other.losses
        gain = self.share @ lower
        return float(gain), float((self.share.square() @ (lower - gain).square()).sqrt())


def _judge(problem: Problem, rows: Tensor, folds: Sequence[Walk[_D]]) -> _Judgement:
    """Losses of the rows, each predicted without its fold.

    The calibration has no class biases, whatever the differentiated loss has: they would take back what a
    step does to the balance of classes, and the user's predictions get none.
    """
    judged = problem.judged
    left_out = torch.empty(len(rows), judged.n_classes, dtype=torch.float64)
    for fold in folds:
        left_out[fold.inside[rows]] = fold.outputs()
    labels, mask = judged.labels[rows], judged.validation_mask[rows]
    loss = calibrate(left_out, labels, mask, bias=False)
    targets = torch.nn.functional.one_hot(labels, judged.n_classes).double()
    share = mask / mask.sum()
    wrong = (left_out.argmax(dim=1) != labels).double()
    return _Judgement(loss.value(left_out, targets), share, float(share @ wrong))


def _calibrated(problem: Problem, task: RidgeTask, fit: RidgeFit) -> RobustCrossEntropy:
    judged = problem.judged
    rows = calibration_rows(problem.order, judged.validation_mask, judged.n_classes)
    left_out = problem.validation is None
    found = loo_predictions(task, fit, rows) if left_out else predictions(judged, fit, rows)
    return calibrate(found, judged.labels[rows], judged.validation_mask[rows], bias=problem.bias)
