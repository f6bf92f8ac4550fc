"""The ridge of a head that was fitted to other weights or labels, sought near a ridge that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.fit.moments import Moments
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.leave_out.leave_one_out import loo_predictions

_RIDGE_ROWS = 1000
"""Samples by whose leave-one-out loss a head's ridge is found, at the most."""

_FACTOR = 2.0
"""Between two ridges that are tried."""

_FLAT, _PLATEAU = 0.005, 0.0005
"""Relative rises of the loss at half the ridge. Below the first one it is at its optimum, as far as errors
show; below the second one the ridge may be so small that it does nothing, and the optimum far."""

_MOST_TRIED = 12
"""Ridges tried in one direction: then a factor of 4,096 lies between the first and the last."""


@dataclass(frozen=True)
class RidgeSearch:
    """How heads find their ridge.

    Attributes:
        order: (n,) row numbers in the order that samples are drawn in, where there are many.
        fixed: Whether they have the one that is given.
        counted: (n,) bool, samples whose loss counts; None: all.
    """

    order: Tensor
    fixed: bool
    counted: Tensor | None = None

    def fit(self, task: RidgeTask, sums: Moments, start: float) -> RidgeFit:
        """The head at the leave-one-out optimum of its ridge, sought from where another head has it.

        Ridges a factor of two apart are tried, smaller ones first, in the direction in which the loss falls,
        until it rises. Where it rises a little to the one side, the other side is not looked at.

        Args:
            task: The samples at their weights.
            sums: Their moments.
            start: The first ridge.

        Raises:
            SolveError: No sample has a positive weight.
        """
        if self.fixed or not bool((task.weights > 0).any()):
            return sums.fit(start)
        rows = _few(task, self.order)
        few = task.select(rows)
        counted = few.weights if self.counted is None else few.weights * self.counted[rows]
        counted = counted if bool((counted > 0).any()) else few.weights
        share = counted / counted.sum()
        targets = torch.nn.functional.one_hot(few.labels, few.n_classes).double()
        everyone = torch.arange(len(few))

        def tried(ridge: float) -> tuple[float, RidgeFit | None]:
            try:
                fit = sums.fit(ridge)
                left_out = loo_predictions(few, fit, everyone)
            except SolveError:  # so small that nothing determines a prediction
                return math.inf, None
            return float(share @ (left_out - targets).square().sum(dim=1)), fit

        best = tried(start)
        # Decisions mostly ask for a smaller ridge. Where nothing is determined there is none to be found.
        for factor in (1 / _FACTOR, _FACTOR) if best[1] is not None else (_FACTOR,):
            ridge = start
            for _ in range(_MOST_TRIED):
                ridge *= factor
                found = tried(ridge)
                if found[0] >= best[0] and best[1] is not None:
                    break
                best = found
            moved = best[1] is not None and best[1].ridge != start
            if moved or (1 + _PLATEAU) * best[0] < found[0] < (1 + _FLAT) * best[0]:
                break
        # Where no ridge near has a loss, a head may still predict a fold.
        return best[1] or sums.fit(start)


def _few(task: RidgeTask, order: Tensor) -> Tensor:
    """Evenly spaced samples of positive weight, whole groups of them, ascending row numbers."""
    present = order[task.weights[order] > 0]
    spaced = present[:: max(1, -(-len(present) // _RIDGE_ROWS))]
    if task.groups is None:
        return spaced.sort().values
    _, number = task.numbered_groups()
    mean_size = len(present) / len(torch.unique(number[present]))
    chosen = number[spaced[:: max(1, round(mean_size))]]
    return (torch.isin(number, chosen) & (task.weights > 0)).nonzero()[:, 0]
