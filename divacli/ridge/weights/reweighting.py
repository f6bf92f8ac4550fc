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

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.ridge.fit.moments import Moments, moments
from divacli.ridge.weights.kfold import StepChoice, drawn, judge, walked, without_fold
from divacli.ridge.weights.problem import Problem, differentiate, predictions

SIZES = (0.025, 0.05, 0.1, 0.2, 0.4)
"""Step sizes tried, in units of the mean absolute derivative: a weight of 1 changes by so much on average."""


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
            hint=Advice("use a smaller {step_size}, or auto"),
        )
    factor = float(weights[there].sum()) / left
    return _Step(torch.where(there, moved * factor, weights), uncut, length, factor)


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
    return LeftOut(judge(problem, rows, folds).loss, torch.stack([fold.weights for fold in folds]))


def _folds(problem: Problem, n_folds: int, seed: int, without: Tensor | None) -> tuple[list[_Fold], Tensor]:
    """The folds where their walks begin, and the rows that are judged."""
    parts, rows = drawn(problem, n_folds, seed, without)
    whole = moments(problem.task)
    starts = [problem.task.weights] * len(parts) if without is None else list(without)
    folds = [_Fold(problem, inside, rows, whole, start) for inside, start in zip(parts, starts, strict=True)]
    return folds, rows


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
        if bool((more < 0).any()):
            self._moments = self._moments - self._sums((-more).clamp_min(0))
        if bool((more > 0).any()):
            self._moments = self._moments + self._sums(more.clamp_min(0))
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
