"""K-fold over a whole procedure: folds that walk without their own samples, and are judged by these.

How they walk is their own affair: on the weights of samples (`reweighting`) or on shares of kinds (`shares`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.ridge.fit.folds import split_in_folds
from divacli.ridge.leave_out.calibration import calibrate, calibration_rows
from divacli.ridge.weights.problem import Problem

SURENESS = 2.0
"""Standard errors that a gain has to exceed: some of many trials exceed one by chance."""

_ROUNDING = 1e-9
"""Relative gains below this are no gains: a step that changes nothing has them, too."""

_D = TypeVar("_D")


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
    now = judge(problem, rows, folds)
    taken: list[float] = []
    trials: list[Trial] = []
    for step in range(1, most + 1):
        directions = [fold.direction() for fold in folds]
        best: tuple[float, Judgement, Sequence[Walk[_D]]] | None = None
        for size in sizes:
            moved = [fold.moved(direction, size) for fold, direction in zip(folds, directions, strict=True)]
            found = judge(problem, rows, moved)
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


def drawn(
    problem: Problem,
    n_folds: int,
    seed: int,
    without: Tensor | None = None,
    stays: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """For each fold (n,) bool which of the judged samples are its, and the rows (m,) that are judged.

    There are no more folds than there are groups to deal out, so that none is empty.

    Args:
        problem: The problem.
        n_folds: K.
        seed: As for `choose_steps`.
        without: As for `left_out`.
        stays: (n,) bool, samples that are in no fold; by default none.

    Raises:
        SolveError: Less than two groups stay when a fold leaves: none of them could be left out in turn.
    """
    judged = problem.judged
    rows = calibration_rows(problem.order, judged.validation_mask, judged.n_classes)
    groups = torch.arange(len(judged)) if judged.groups is None else judged.groups
    n_folds = min(n_folds, len(set(groups.tolist())))
    number = split_in_folds(judged.labels, problem.order, seed, n_folds, judged.groups)
    if stays is not None:
        number = torch.where(stays, -1, number)
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
                hint=Advice("give {step_size} NUMBER or {val} DATA; where there are three, {folds} 3"),
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


@dataclass(frozen=True)
class Judgement:
    """Losses of the judged rows, each left out.

    Attributes:
        losses: (m,) float64, in nats.
        share: (m,) float64 of each row in the mean.
        error: Share of rows predicted as another class than their label.
    """

    losses: Tensor
    share: Tensor
    error: float

    @property
    def loss(self) -> float:
        """Their mean, weighted by `share`."""
        return float(self.share @ self.losses)

    def gain_of(self, other: Judgement) -> tuple[float, float]:
        """By how much the other's loss is lower, and the standard error of that: the samples are the same."""
        lower = self.losses - other.losses
        gain = self.share @ lower
        return float(gain), float((self.share.square() @ (lower - gain).square()).sqrt())


def judge(problem: Problem, rows: Tensor, folds: Sequence[Walk[_D]]) -> Judgement:
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
    return Judgement(loss.value(left_out, targets), share, float(share @ wrong))
