"""The slow, readable truth: ridge regression refitted from its normal equations for every question.

Nothing here uses the eigenbasis, the whitening or the derivative's formula. It exists to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.leave_out.losses import Loss

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

    def refit(self, rows: slice | Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """Cholesky factor and coefficients (width, k) after the weights of some samples have changed.

        Args:
            rows: The samples.
            change: (m,) what is added to their weights.
        """
        design, targets, _ = _design(self.task, rows)
        added = design.T * change.to(design)
        factor, failed = torch.linalg.cholesky_ex(self._normal + added @ design)
        if int(failed):
            named = rows.start if isinstance(rows, slice) else int(rows[0])
            raise SolveError(
                f"without sample {named}{' and its group' if len(design) > 1 else ''} "
                "the normal equations are singular",
                expected="a ridge that makes them positive definite",
                hint=Advice("use a larger {ridge}"),
            )
        return factor, torch.cholesky_solve(self._right + added @ targets, factor)

    def _moved(self, row: int, change: float) -> tuple[Tensor, Tensor]:
        """`refit` where one weight has changed."""
        return self.refit(slice(row, row + 1), torch.tensor([change], dtype=torch.float64))

    def loo_prediction(self, row: int) -> Tensor:
        """(k,) prediction for a sample by a fit from which it and its group are absent: a true refit."""
        one = slice(row, row + 1)
        groups = self.task.groups
        absent = one if groups is None else (groups == groups[row]).nonzero().squeeze(1)
        _, coef = self.refit(absent, -self.task.weights[absent])
        return _predict(self.task, one, coef)[0].cpu()

    def loo_losses(self, loss: Loss, row: int = 0, change: float = 0.0) -> Tensor:
        """(n,) every sample's LOO loss after one weight has changed, by the LOO identity on a fresh fit.

        `loo_prediction` is what shows the identity right; n refits for every perturbed weight would take n
        times as long to say the same.
        """
        factor, coef = self._moved(row, change)
        weights = self.task.weights.clone()
        weights[row] += change
        found = torch.empty(len(self.task), dtype=torch.float64)
        for rows in self.task.parts():
            design, targets, labels = _design(self.task, rows)
            half = torch.linalg.solve_triangular(factor, design.T, upper=False)
            alpha, residuals = weights[rows].to(design), targets - design @ coef
            if self.task.groups is None:
                residuals /= (1 - alpha * half.square().sum(dim=0))[:, None]
            for members in self._groups(rows):
                system = (
                    torch.eye(len(members)).to(half) - half[:, members].T @ half[:, members] * alpha[members]
                )
                residuals[members] = torch.linalg.solve(system, residuals[members])
            found[rows] = loss.value(labels - residuals, labels).cpu()
        return found

    @cached_property
    def _step(self) -> float:
        """A change of weight that is small against those at which the loss has poles.

        A fit is singular where the weight changes by `-1 / h`. Another group cannot be left out where it
        changes by `-lambda / (h_jG D h_Gj)`, with lambda at least the smallest eigenvalue of
        `I - D^1/2 H D^1/2` (of one sample the LOO denominator `s`) and `h_jG D h_Gj` at most `h`.
        """
        factor, _ = self._moved(0, 0.0)
        largest, smallest = 0.0, 1.0
        for rows in self.task.parts():
            design, _, _ = _design(self.task, rows)
            half = torch.linalg.solve_triangular(factor, design.T, upper=False)
            weighted = half * self.task.weights[rows].to(half).sqrt()
            largest = max(largest, float(half.square().sum(dim=0).max()))
            if self.task.groups is None:
                smallest = min(smallest, 1 - float(weighted.square().sum(dim=0).max()))
            for members in self._groups(rows):
                smallest = min(smallest, 1 - float(torch.linalg.matrix_norm(weighted[:, members], 2)) ** 2)
        # Features that are all zero move no fit, whatever the step.
        return 0.02 * min(1.0, max(smallest, 1e-6) / largest) if largest > 0 else 0.02

    def _groups(self, rows: slice | Tensor) -> list[Tensor]:
        """Positions (m,) of every group's members in a part; none where the task has no groups."""
        if self.task.groups is None:
            return []
        groups = self.task.groups[rows]
        return [(groups == group).nonzero().squeeze(1) for group in torch.unique(groups)]

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
            _, coef = self._moved(row, change)
            found = []
            for rows in validation.slices():
                _, _, labels = _design(validation, rows)
                found.append(loss.value(_predict(validation, rows, coef), labels))
            return torch.cat(found).cpu()

        return _difference(losses, validation.validation_mask, fraction * self._step)


def _design(task: RidgeTask, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
