"""Closed-form leave-one-out residuals and predictions of weighted ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.losses import Loss
from divacli.ridge.spectrum import RidgeFit
from divacli.ridge.task import Batch, RidgeTask


@dataclass(frozen=True)
class BatchResiduals:
    """The method's per-sample quantities for one batch.

    Attributes:
        whitened: (b, r) `phi`, with `phi_i . phi_j = z_i A^-1 z_j'`.
        residuals: (b, k) training residuals `e = t - phi coef`.
        leverage: (b,) unweighted leverage `h = |phi|^2`.
        denominator: (b,) LOO denominator `s = 1 - alpha h` > 0.
        loo_residuals: (b, k) `r = e / s`.
        loo_predictions: (b, k) `y - r`, which includes the offset `f_w0(x)` where there is one.
    """

    whitened: Tensor
    residuals: Tensor
    leverage: Tensor
    denominator: Tensor
    loo_residuals: Tensor
    loo_predictions: Tensor

    def __getitem__(self, rows: Tensor) -> BatchResiduals:
        """The same quantities for some rows of the batch."""
        return BatchResiduals(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def batch_residuals(fit: RidgeFit, batch: Batch) -> BatchResiduals:
    """Residuals and leverage of a batch under a fit of the same dtype.

    Raises:
        SolveError: A sample's weighted leverage is one: without it, nothing determines its prediction.
    """
    whitened = fit.project(batch.features)
    return residuals_of_whitened(fit, whitened, batch)


def residuals_of_whitened(fit: RidgeFit, whitened: Tensor, batch: Batch) -> BatchResiduals:
    """As `batch_residuals`, where the whitened features (b, r) are at hand already."""
    residuals = batch.targets - whitened @ fit.coef
    leverage = whitened.square().sum(dim=1)
    denominator = 1 - batch.weights * leverage
    # Rounding leaves a leverage of exactly one a few units either side of it.
    if bool((denominator <= 16 * torch.finfo(denominator.dtype).eps).any()):
        row = batch.rows.start + int(denominator.argmin())
        raise SolveError(
            f"sample {row} has a leverage of one at ridge {fit.ridge:g}: "
            "without it, nothing determines its prediction",
            expected="every sample's prediction to be determined by the others",
            hint="use a larger --ridge, or --dtype float64 if the ridge is meant to be this small",
        )
    loo_residuals = residuals / denominator[:, None]
    predictions = batch.labels - loo_residuals
    return BatchResiduals(whitened, residuals, leverage, denominator, loo_residuals, predictions)


@dataclass(frozen=True)
class LooResult:
    """What leaving each sample out says of it, on the CPU.

    Attributes:
        loss: (n,) float64 LOO loss of every sample, whatever its mask.
        predicted: (n,) int64 class with the largest LOO prediction.
        leverage: (n,) float64 unweighted leverage `h`.
    """

    loss: Tensor
    predicted: Tensor
    leverage: Tensor

    @classmethod
    def empty(cls, n: int) -> LooResult:
        """Room for n samples."""
        zeros = torch.zeros(n, dtype=torch.float64)
        return cls(zeros, torch.zeros(n, dtype=torch.int64), zeros.clone())

    def record(self, batch: Batch, now: BatchResiduals, loss: Loss) -> None:
        """Enter one batch."""
        self.loss[batch.rows] = loss.value(now.loo_predictions, batch.labels).double().cpu()
        self.predicted[batch.rows] = now.loo_predictions.argmax(dim=1).cpu()
        self.leverage[batch.rows] = now.leverage.double().cpu()


def leave_one_out(task: RidgeTask, fit: RidgeFit, loss: Loss) -> LooResult:
    """LOO loss and prediction of every sample under `fit`, in one pass: O(n d^2)."""
    fit = fit.to(task.dtype)
    result = LooResult.empty(len(task))
    for batch in task.batches():
        result.record(batch, batch_residuals(fit, batch), loss)
    return result


def loo_predictions(task: RidgeTask, fit: RidgeFit, rows: Tensor) -> Tensor:
    """LOO predictions (m, k) float64 on the CPU of chosen samples.

    Args:
        task: The problem.
        fit: The ridge solution.
        rows: (m,) int64, ascending.
    """
    fit = fit.to(task.dtype)
    found = []
    for part in task.slices():
        inside = rows[(rows >= part.start) & (rows < part.stop)]
        if len(inside):
            predictions = batch_residuals(fit, task.batch(part)).loo_predictions
            found.append(predictions[(inside - part.start).to(task.device)].double().cpu())
    return torch.cat(found)
