"""What a validation loss becomes when many samples leave the training set at once, exactly.

The derivative is of the first order: it holds for one sample, and for a group only as long as its leaving
hardly moves the fit. Here the fit is made anew without the group: its moments are those of all samples minus
those of the group, so that a group costs one factorisation and one pass over the samples.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.fit.moments import Moments, moments
from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.leave_out.derivative import validation_sums
from divacli.ridge.leave_out.leave_one_out import leave_one_out
from divacli.ridge.leave_out.losses import Loss


class Removal:
    """Refits of a task without some of its samples, at one ridge.

    Removed samples still count in the leave-one-out loss, as samples of weight zero do: they are absent from
    the fit and predicted by it (`s = 1`).

    Args:
        task: The samples at their weights.
        ridge: lambda of all fits.
        loss: The validation loss.
        validation: A separate validation set, whose loss stands in place of the leave-one-out loss.

    Attributes:
        loss: The summed validation loss `sum_i v_i l_i` with all samples.

    Raises:
        SolveError: The task has no answer at this ridge.
    """

    def __init__(
        self, task: RidgeTask, ridge: float, loss: Loss, validation: RidgeTask | None = None
    ) -> None:
        self._task, self._ridge, self._loss, self._validation = task, ridge, loss, validation
        self._mask = (task if validation is None else validation).validation_mask
        self._whole = moments(task)
        self._before = self._losses(task, self._whole)
        self.loss = float(self._mask @ self._before)

    def change(self, rows: Tensor) -> float:
        """By how much the summed validation loss rises when the weights of some samples become zero.

        To the first order it is minus the sum of their weights times derivatives. O(m d^2) for the moments of
        m samples, O(d^3) for the factorisation and O(n d^2) for the losses.

        Args:
            rows: (m,) int64.

        Raises:
            SolveError: Fewer than two classes would be left, or the rest has no answer.
        """
        absent = torch.zeros(len(self._task), dtype=torch.bool).index_fill_(0, rows, True)
        staying, leaving = (
            replace(self._task, weights=torch.where(where, 0.0, self._task.weights))
            for where in (absent, ~absent)
        )
        left = len(torch.unique(staying.labels[staying.weights > 0]))
        if left < 2:
            raise SolveError(
                f"without these {len(rows):,} samples {left} classes of positive weight are left",
                expected="two at least",
            )
        after = self._losses(staying, self._whole - moments(leaving, self._whole.shift))
        # Sample by sample: a difference of two large sums would lose the digits that are wanted.
        return float(self._mask @ (after - self._before))

    def _losses(self, task: RidgeTask, sums: Moments) -> Tensor:
        """Loss of every validation sample, float64, under the fit of some moments."""
        fit = sums.fit(self._ridge)
        if self._validation is None:
            return leave_one_out(task, fit, self._loss).loss
        return validation_sums(self._validation, fit.to(task.dtype), self._loss)[1].loss
