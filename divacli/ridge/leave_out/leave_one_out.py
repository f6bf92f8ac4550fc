"""Closed-form leave-one-out residuals and predictions of weighted ridge regression.

Where the samples have groups, a prediction is that of the fit without the sample's whole group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.parallel import world
from divacli.ridge.fit.passes import look
from divacli.ridge.fit.scaling import require_finite
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask, positions
from divacli.ridge.leave_out.left_out import Alone, Influence, Together, left_out
from divacli.ridge.leave_out.losses import Loss


@dataclass(frozen=True)
class BatchResiduals:
    """The method's per-sample quantities for one batch.

    Attributes:
        whitened: (b, r) `phi`, with `phi_i . phi_j = z_i A^-1 z_j'`.
        residuals: (b, k) training residuals `e = t - phi coef`.
        leverage: (b,) unweighted leverage `h = |phi|^2`.
        left_out: The systems `S` that leave the groups out; of single samples `s = 1 - alpha h` > 0.
        loo_residuals: (b, k) `r = e / s`, of groups `S^-1 E`.
        loo_predictions: (b, k) `y - r`, which includes the offset `f_w0(x)` where there is one.
    """

    whitened: Tensor
    residuals: Tensor
    leverage: Tensor
    left_out: Alone | Together
    loo_residuals: Tensor
    loo_predictions: Tensor

    def influence(self, batch: Batch, loss: Loss) -> Influence:
        """What the batch, as validation samples, contributes to the derivative of the LOO loss."""
        gradient = -batch.mask[:, None] * loss.gradient(self.loo_predictions, batch.labels)
        return self.left_out.influence(gradient, self.loo_residuals)


def batch_residuals(fit: RidgeFit, batch: Batch) -> BatchResiduals:
    """Residuals and leverage of a batch of whole groups under a fit of the same dtype.

    Raises:
        SolveError: A weighted leverage is one: without a sample (or its group), nothing determines its
            prediction.
    """
    whitened = fit.project(batch.features)
    return residuals_of_whitened(fit, whitened, batch)


def residuals_of_whitened(fit: RidgeFit, whitened: Tensor, batch: Batch) -> BatchResiduals:
    """As `batch_residuals`, where the whitened features (b, r) are at hand already."""
    residuals = batch.targets - whitened @ fit.coef
    leverage = torch.linalg.vector_norm(whitened, dim=1).square()
    without = left_out(whitened, leverage, batch.weights, batch.blocks)
    position = without.undetermined()
    if position is not None:
        row = int(batch.numbers[position])
        who = f"sample {row}" if batch.groups is None else f"the group of sample {row}"
        raise SolveError(
            f"{who} has a leverage of one at ridge {fit.ridge:g}: "
            "without it, nothing determines its prediction",
            expected="every sample's prediction to be determined by the others",
            hint=Advice("use a larger {ridge}, or {dtype} float64 if the ridge is meant to be this small"),
        )
    loo_residuals = without.residuals(residuals)
    predictions = batch.labels - loo_residuals
    return BatchResiduals(whitened, residuals, leverage, without, loo_residuals, predictions)


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

    def merged(self) -> LooResult:
        """With what other processes have entered.

        Raises:
            SolveError: A loss is not finite.
        """
        for vector in (self.loss, self.predicted, self.leverage):
            world().merged(vector)
        require_finite(self.loss, "leave-one-out losses")
        return self

    def record(self, batch: Batch, now: BatchResiduals, loss: Loss) -> None:
        """Enter one batch."""
        self.loss[batch.rows] = loss.value(now.loo_predictions, batch.labels).double().cpu()
        self.predicted[batch.rows] = now.loo_predictions.argmax(dim=1).cpu()
        self.leverage[batch.rows] = now.leverage.double().cpu()


def leave_one_out(task: RidgeTask, fit: RidgeFit, loss: Loss) -> LooResult:
    """LOO loss and prediction of every sample under `fit`, in one pass: O(n d^2)."""
    fit = fit.to(task.dtype)
    result = LooResult.empty(len(task))
    look(task, lambda batch: result.record(batch, batch_residuals(fit, batch), loss), whole_groups=True)
    return result.merged()


def predictable(task: RidgeTask) -> Tensor:
    """Which samples belong to a class that is there without them (and their group), (n,) bool.

    The others are predicted by a fit that never saw their class.
    """
    _, number = task.numbered_groups()
    present = task.weights > 0
    first = torch.full((task.n_classes,), len(task)).scatter_reduce(
        0, task.labels[present], number[present], "amin"
    )
    last = torch.full((task.n_classes,), -1).scatter_reduce(0, task.labels[present], number[present], "amax")
    of_class = first[task.labels], last[task.labels]
    return (of_class[1] >= 0) & ((of_class[0] != number) | (of_class[1] != number))


def loo_predictions(task: RidgeTask, fit: RidgeFit, rows: Tensor) -> Tensor:
    """LOO predictions (m, k) float64 on the CPU of chosen samples.

    Args:
        task: The problem.
        fit: The ridge solution.
        rows: (m,) int64.
    """
    fit = fit.to(task.dtype)
    found = torch.zeros(len(rows), task.n_classes, dtype=torch.float64)
    if task.groups is None:
        # Samples that are left out alone need no others.
        chosen = task.select(rows)

        def alone(batch: Batch) -> None:
            found[batch.rows] = batch_residuals(fit, batch).loo_predictions.double().cpu()

        look(chosen, alone)
    else:

        def together(batch: Batch) -> None:
            assert isinstance(batch.rows, Tensor)  # whole groups
            inside, places = positions(batch.rows, rows)
            if len(places):
                predictions = batch_residuals(fit, batch).loo_predictions
                found[inside] = predictions[places.to(task.device)].double().cpu()

        look(task, together, whole_groups=True)
    return require_finite(world().merged(found), "leave-one-out predictions")
