"""The slow, readable truth: ridge regression refitted from its normal equations for every question.

Nothing here uses the eigenbasis, the whitening or the derivative's formula. It exists to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.losses import Loss
from divacli.ridge.task import RidgeTask

_STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))
"""Sixth-order central difference: f'(0) ~ sum_m c_m (f(mh) - f(-mh)) / h."""


class Oracle:
    """Refits of a task at one ridge, in float64 on the task's device, one Cholesky factorisation each.

    Args:
        task: The problem; its features are read in batches. A design row is `[z, 1]` with an intercept.
        ridge: lambda.

    Raises:
        SolveError: (from every refit) the normal equations are singular.
    """

    def __init__(self, task: RidgeTask, ridge: float) -> None:
        self.task = task
        width = task.n_features + task.intercept
        self._normal = torch.zeros(width, width, dtype=torch.float64, device=task.device)
        self._right = torch.zeros(width, task.n_classes, dtype=torch.float64, device=task.device)
        for rows in task.slices():
            design, targets, _ = _design(task, rows)
            weights = task.weights[rows].to(design)
            self._normal += design.T @ (design * weights[:, None])
            self._right += design.T @ (targets * weights[:, None])
        self._normal.diagonal()[: task.n_features] += ridge

    def refit(self, row: int, change: float) -> tuple[Tensor, Tensor]:
        """Cholesky factor and coefficients (width, k) after the weight of one sample has changed."""
        design, targets, _ = _design(self.task, slice(row, row + 1))
        factor, failed = torch.linalg.cholesky_ex(self._normal + change * design.T @ design)
        if int(failed):
            raise SolveError(
                f"without sample {row} the normal equations are singular",
                expected="a ridge that makes them positive definite",
                hint="use a larger --ridge",
            )
        return factor, torch.cholesky_solve(self._right + change * design.T @ targets, factor)

    def loo_prediction(self, row: int) -> Tensor:
        """(k,) prediction for a sample by a fit from which it is absent: a true refit."""
        _, coef = self.refit(row, -float(self.task.weights[row]))
        return _predict(self.task, slice(row, row + 1), coef)[0].cpu()

    def loo_losses(self, loss: Loss, row: int = 0, change: float = 0.0) -> Tensor:
        """(n,) every sample's LOO loss after one weight has changed, by the LOO identity on a fresh fit.

        `loo_prediction` is what shows the identity right; n refits for every perturbed weight would take n
        times as long to say the same.
        """
        factor, coef = self.refit(row, change)
        weights = self.task.weights.clone()
        weights[row] += change
        found = []
        for rows in self.task.slices():
            design, targets, labels = _design(self.task, rows)
            leverage = self._leverage(factor, rows)
            denominator = 1 - weights[rows].to(leverage) * leverage
            residuals = (targets - design @ coef) / denominator[:, None]
            found.append(loss.value(labels - residuals, labels))
        return torch.cat(found).cpu()

    @cached_property
    def _step(self) -> float:
        """A change of weight that is small against those at which the loss has poles.

        A fit is singular where the weight changes by `-1 / h`, and another sample's LOO denominator `s` is
        zero where it changes by `-s / h_ij^2`, with `h_ij^2` at most the product of both leverages.
        """
        factor, _ = self.refit(0, 0.0)
        leverage = torch.cat([self._leverage(factor, rows) for rows in self.task.slices()]).cpu()
        largest, denominator = float(leverage.max()), float((1 - self.task.weights * leverage).min())
        return 0.02 * min(1.0, 1 / largest, max(denominator, 1e-6) / largest**2)

    def _leverage(self, factor: Tensor, rows: slice) -> Tensor:
        """(b,) unweighted leverage `z A^-1 z'`."""
        design, _, _ = _design(self.task, rows)
        half: Tensor = torch.linalg.solve_triangular(factor, design.T, upper=False)
        return half.square().sum(dim=0)

    def loo_derivative(self, loss: Loss, row: int, fraction: float = 1.0) -> float:
        """`dL/d alpha_row` of the summed LOO loss by central differences of refitted losses.

        Args:
            loss: The validation loss.
            row: The sample.
            fraction: Of the usual step: two results at different ones differ by what rounding does to them.
        """
        step = fraction * self._step
        return _difference(lambda h: self.loo_losses(loss, row, h), self.task.validation_mask, step)

    def validation_derivative(
        self, validation: RidgeTask, loss: Loss, row: int, fraction: float = 1.0
    ) -> float:
        """`dL/d alpha_row` of a separate validation set's summed loss, likewise."""

        def losses(change: float) -> Tensor:
            _, coef = self.refit(row, change)
            found = []
            for rows in validation.slices():
                _, _, labels = _design(validation, rows)
                found.append(loss.value(_predict(validation, rows, coef), labels))
            return torch.cat(found).cpu()

        return _difference(losses, validation.validation_mask, fraction * self._step)


def _design(task: RidgeTask, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Design rows (b, width), targets (b, k) and one-hot labels (b, k), float64."""
    batch = task.batch(rows, torch.float64)
    design = batch.features
    if task.intercept:
        design = torch.cat([design, torch.ones_like(design[:, :1])], dim=1)
    return design, batch.targets, batch.labels


def _predict(task: RidgeTask, rows: slice, coef: Tensor) -> Tensor:
    """Predictions (b, k) `f_w0(x) + z W`."""
    design, targets, labels = _design(task, rows)
    return design @ coef + (labels - targets)


def _difference(losses: Callable[[float], Tensor], mask: Tensor, step: float) -> float:
    """Sixth-order central difference of a masked sum of losses.

    Losses are subtracted sample by sample before they are summed: a difference of two large sums would
    lose the digits that are wanted.
    """
    total = 0.0
    for multiple, factor in _STENCIL:
        change = losses(multiple * step) - losses(-multiple * step)
        total += factor * float(mask @ change) / step
    return total
