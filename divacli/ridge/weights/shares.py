"""Better shares of the kinds of samples: the steps of `reweighting`, on one factor for each kind.

A sample of kind k (its number in `Problem.shared`) weighs `a_k alpha`, where `alpha` is its weight in the
problem: who is absent stays absent, and samples of one kind keep their proportions. By the chain rule

    dL/da_k = sum over kind k of alpha dL/d(a_k alpha)

and a step goes against its mean over the kind's weight, `(dL/da_k) / sum over kind k of alpha`: a kind of few
samples is no rarer for that. Moments are linear in the shares, `sum_k a_k M_k`, so that a fold sums each M_k
once, and no step or size takes another pass for its fit.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.ridge.fit.moments import Moments, moments
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.weights.kfold import StepChoice, drawn, walked, without_fold
from divacli.ridge.weights.problem import Problem, differentiate, predictions
from divacli.ridge.weights.reweighting import SIZES, stepped


@dataclass(frozen=True)
class ShareDerivative:
    """The derivative of a problem's loss at some shares.

    Attributes:
        derivative: (K,) float64 `dL/da`, positive = harmful.
        mean: (K,) float64, the same over each kind's weight: what steps go against; 0 for a kind without.
        mean_loss: Mean loss, as of `Derivative`.
        error: Likewise.
    """

    derivative: Tensor
    mean: Tensor
    mean_loss: float
    error: float


def share_weights(problem: Problem, shares: Tensor) -> Tensor:
    """Weights (n,) float64 of the samples at some shares.

    Args:
        problem: With the kinds as its `shared`, at shares of 1.
        shares: (K,) float64 `a`.
    """
    return shares[_kind(problem)] * problem.task.weights


def differentiate_shares(problem: Problem, shares: Tensor, fit: RidgeFit | None = None) -> ShareDerivative:
    """The derivative at some shares, its loss recalibrated there.

    Args:
        problem: With the kinds as its `shared`, at shares of 1.
        shares: (K,) float64.
        fit: The ridge solution at these shares, where it is at hand.

    Raises:
        SolveError: As `differentiate`.
    """
    found = differentiate(replace(problem, shared=None), share_weights(problem, shares), fit)
    weights = problem.task.weights
    derivative, weight = torch.zeros(2, len(shares), dtype=torch.float64).index_add_(
        1, _kind(problem), torch.stack([weights * found.derivative, weights])
    )
    # Without weight there is no derivative either.
    mean = derivative / weight.clamp_min(torch.finfo(torch.float64).tiny)
    return ShareDerivative(derivative, mean, found.mean_loss, found.error)


def choose_shares(
    problem: Problem,
    *,
    most: int = 3,
    sizes: Sequence[float] = SIZES,
    n_folds: int = 5,
    seed: int = 0,
    tried: Callable[[], None] = lambda: None,
) -> StepChoice:
    """Choose how many steps from equal shares to take, and how large, as `choose_steps` does for weights.

    Args:
        problem: With the kinds as its `shared`, at shares of 1.
        most: Steps at the most.
        sizes: To try, in units of the mean absolute derivative over kinds.
        n_folds: K.
        seed: Of the random folds, balanced within classes, groups kept whole.
        tried: Called after each size.

    Raises:
        SolveError: As `choose_steps`.
    """
    parts, rows = drawn(problem, n_folds, seed)
    whole = _by_kind(problem, problem.task.weights)
    folds = [_Fold(problem, inside, rows, whole) for inside in parts]
    return walked(problem, rows, folds, most, sizes, tried)


def equal_shares(problem: Problem) -> Tensor:
    """Shares (K,) float64 of 1.

    Args:
        problem: With the kinds as its `shared`.
    """
    return torch.ones(int(_kind(problem).max()) + 1, dtype=torch.float64)


def walk_shares(problem: Problem, sizes: Sequence[float]) -> Tensor:
    """Shares (K,) float64 after some steps from equal ones; the samples are summed but once.

    Args:
        problem: With the kinds as its `shared`, at shares of 1.
        sizes: Of the steps, in units of the mean absolute derivative over kinds.

    Raises:
        SolveError: As `differentiate`, or every share would become zero.
    """
    shares = equal_shares(problem)
    if sizes:
        parts = _by_kind(problem, problem.task.weights)
    for size in sizes:
        fit = _at_shares(parts, shares).fit(problem.ridge)
        shares = stepped(shares, differentiate_shares(problem, shares, fit).mean, size)
    return shares


class _Fold:
    """A fold's walk on shares, from equal ones.

    Args:
        problem: The whole problem.
        inside: (n,) bool, which of the judged samples are the fold's.
        rows: Rows of the judged samples that predictions are wanted for.
        whole: Moments of all training samples of each kind, from which the fold's are taken.
    """

    def __init__(self, problem: Problem, inside: Tensor, rows: Tensor, whole: list[Moments]) -> None:
        self.inside = inside
        self._rows = rows[inside[rows]]
        self._rest = without_fold(problem, inside)
        self._moments = whole
        if problem.validation is None:
            absent = torch.where(inside, problem.task.weights, 0.0)
            parts = _by_kind(problem, absent, whole[0].shift)
            self._moments = [every - part for every, part in zip(whole, parts, strict=True)]
        self._walk_to(equal_shares(problem))

    def direction(self) -> Tensor:
        """The derivative (K,) at the present shares."""
        return differentiate_shares(self._rest, self._shares, self._fit).mean

    def outputs(self) -> Tensor:
        """Predictions (m, k) float64 for the fold's rows at the present shares."""
        return predictions(self._rest.judged, self._fit, self._rows)

    def moved(self, direction: Tensor, size: float) -> _Fold:
        """This walk after one step more."""
        after = copy(self)
        after._walk_to(stepped(self._shares, direction, size))
        return after

    def _walk_to(self, shares: Tensor) -> None:
        self._shares = shares
        self._fit = _at_shares(self._moments, shares).fit(self._rest.ridge)


def _at_shares(parts: list[Moments], shares: Tensor) -> Moments:
    """Moments of all samples from those of each kind, at shares (K,)."""
    parts = [part.times(share) for part, share in zip(parts, shares.tolist(), strict=True)]
    return functools.reduce(operator.add, parts)


def _by_kind(problem: Problem, weights: Tensor, shift: Tensor | None = None) -> list[Moments]:
    """Moments of the samples of each kind at weights (n,), all taken from one point."""
    kind = _kind(problem)
    found: list[Moments] = []
    for number in range(int(kind.max()) + 1):
        task = replace(problem.task, weights=torch.where(kind == number, weights, 0.0))
        found.append(moments(task, found[0].shift if found else shift))
    return found


def _kind(problem: Problem) -> Tensor:
    assert problem.shared is not None
    return problem.shared
