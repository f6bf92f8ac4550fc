"""The dataset derivative: how a validation loss changes with the weight of every training sample.

With `phi` the whitened features (`phi_i . phi_j = z_i A^-1 z_j'`), `e` the training residuals, `h` the
leverage, `s = 1 - alpha h`, `r = e / s`, `g_i = v_i dl_i/dr_i` and `c_i = g_i . r_i`, the LOO loss has

    dL/d alpha_j = c_j h_j / s_j - e_j . (phi_j P) - phi_j M phi_j'
    P = Phi' diag(1/s) G,   M = Phi' diag(alpha c / s) Phi

which is the formula of the DIVA paper's leave-one-out task in coordinates where `A` is the identity: two
passes over the samples, O(n d^2) each, and no matrix larger than d x d.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.leave_one_out import BatchResiduals, LooResult, batch_residuals
from divacli.ridge.losses import Loss
from divacli.ridge.spectrum import RidgeFit
from divacli.ridge.task import Batch, RidgeTask


class LooSums:
    """The sums `P` and `M` over validation samples, and what they say of any training sample.

    Args:
        fit: The ridge solution, in the dtype of the batches that will be added.
        loss: The validation loss.
    """

    def __init__(self, fit: RidgeFit, loss: Loss) -> None:
        rank, k = fit.coef.shape
        self._loss = loss
        self._p = torch.zeros(rank, k, dtype=torch.float64, device=fit.coef.device)
        self._m = torch.zeros(rank, rank, dtype=torch.float64, device=fit.coef.device)

    def add(self, now: BatchResiduals, labels: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        """Count a batch of validation samples in.

        Args:
            now: Their residuals and leverage.
            labels: (b, k) one-hot labels.
            weights: (b,) sample weights `alpha`.
            mask: (b,) validation weights `v`.

        Returns:
            (b,) each sample's own term `c h / s`: its weight moves its own LOO denominator.
        """
        gradient = -mask[:, None] * self._loss.gradient(now.loo_predictions, labels)
        scaled = (gradient * now.loo_residuals).sum(dim=1) / now.denominator
        self._p += now.whitened.T @ (gradient / now.denominator[:, None])
        self._m += now.whitened.T @ (now.whitened * (weights * scaled)[:, None])
        return scaled * now.leverage

    def through_fit(self, whitened: Tensor, residuals: Tensor) -> Tensor:
        """(b,) what samples do to the loss by moving the fit: `- e . (phi P) - phi M phi'`.

        Args:
            whitened: (b, r) `phi` of training samples.
            residuals: (b, k) their training residuals `e`.
        """
        p, m = self._p.to(whitened), self._m.to(whitened)
        return -(residuals * (whitened @ p)).sum(dim=1) - ((whitened @ m) * whitened).sum(dim=1)


@dataclass(frozen=True)
class DatasetDerivative:
    """The derivative of a summed validation loss with respect to each sample weight, on the CPU.

    Attributes:
        derivative: (n,) float64 `dL/d alpha`, in units of the loss per unit of weight. Positive: more of
            this sample raises the loss, it is harmful; removing it changes the loss by about
            `-alpha` times the derivative.
        loo: The leave-one-out result of the same samples under the same fit.
    """

    derivative: Tensor
    loo: LooResult


def loo_derivative(task: RidgeTask, fit: RidgeFit, loss: Loss) -> DatasetDerivative:
    """Derivative of `L = sum_i v_i l(f_i, y_i)` with `f_i` the prediction made without sample i.

    Args:
        task: The samples, their weights `alpha` and the validation mask `v`.
        fit: The ridge solution at these weights.
        loss: The validation loss `l`.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    fit = fit.to(task.dtype)
    sums = LooSums(fit, loss)
    derivative = torch.zeros(len(task), dtype=torch.float64)
    loo = LooResult.empty(len(task))
    for batch in task.batches():
        now = batch_residuals(fit, batch)
        derivative[batch.rows] = sums.add(now, batch.labels, batch.weights, batch.mask).double().cpu()
        loo.record(batch, now, loss)
    for batch in task.batches():
        whitened, residuals = _training(fit, batch)
        derivative[batch.rows] += sums.through_fit(whitened, residuals).double().cpu()
    return DatasetDerivative(derivative, loo)


class ValidationSums:
    """The sum `P = Zv' Gv` over separate validation samples, and what it says of any training sample.

    Args:
        fit: The ridge solution, in the dtype of the batches that will be added.
        loss: The validation loss.
    """

    def __init__(self, fit: RidgeFit, loss: Loss) -> None:
        self._loss = loss
        self._p = torch.zeros(fit.coef.shape, dtype=torch.float64, device=fit.coef.device)

    def add(self, whitened: Tensor, predictions: Tensor, labels: Tensor, mask: Tensor) -> None:
        """Count a batch of validation samples in.

        Args:
            whitened: (b, r) `phi` of the validation samples.
            predictions: (b, k) their predictions.
            labels: (b, k) their one-hot labels.
            mask: (b,) validation weights `v`.
        """
        self._p += whitened.T @ (mask[:, None] * self._loss.gradient(predictions, labels))

    def through_fit(self, whitened: Tensor, residuals: Tensor) -> Tensor:
        """(b,) derivative `e . (phi P)` for training samples, as in `LooSums.through_fit`."""
        return (residuals * (whitened @ self._p.to(whitened))).sum(dim=1)


@dataclass(frozen=True)
class ValidationResult:
    """A separate validation set under a fit, on the CPU.

    Attributes:
        loss: (m,) float64 loss of every validation sample.
        predicted: (m,) int64 predicted class.
    """

    loss: Tensor
    predicted: Tensor


def validation_derivative(
    task: RidgeTask, validation: RidgeTask, fit: RidgeFit, loss: Loss
) -> tuple[Tensor, ValidationResult]:
    """Derivative of the loss of a separate validation set: `dL/d alpha_j = e_j . (z_j A^-1 Zv' Gv)`.

    Args:
        task: The training samples.
        validation: The validation samples, with the same features, scaling and classes; its mask is `v`.
        fit: The ridge solution of `task`.
        loss: The validation loss.

    Returns:
        (n,) float64 derivative for the samples of `task`, positive = harmful, and the validation result.
    """
    fit = fit.to(task.dtype)
    sums = ValidationSums(fit, loss)
    result = ValidationResult(
        torch.zeros(len(validation), dtype=torch.float64), torch.zeros(len(validation), dtype=torch.int64)
    )
    for batch in validation.batches():
        whitened, residuals = _training(fit, batch)
        predictions = batch.labels - residuals
        sums.add(whitened, predictions, batch.labels, batch.mask)
        result.loss[batch.rows] = loss.value(predictions, batch.labels).double().cpu()
        result.predicted[batch.rows] = predictions.argmax(dim=1).cpu()
    derivative = torch.zeros(len(task), dtype=torch.float64)
    for batch in task.batches():
        whitened, residuals = _training(fit, batch)
        derivative[batch.rows] = sums.through_fit(whitened, residuals).double().cpu()
    return derivative, result


def _training(fit: RidgeFit, batch: Batch) -> tuple[Tensor, Tensor]:
    """Whitened features (b, r) and residuals (b, k) `t - phi coef`; for a validation sample `y - f`."""
    whitened = fit.project(batch.features)
    return whitened, batch.targets - whitened @ fit.coef
