"""The dataset derivative: how a validation loss changes with the weight of every training sample.

With `phi` the whitened features (`phi_i . phi_j = z_i A^-1 z_j'`), `e` the training residuals, `h` the
leverage, `s = 1 - alpha h`, `r = e / s`, `g_i = v_i dl_i/dr_i` and `c_i = g_i . r_i`, the LOO loss has

    dL/d alpha_j = c_j h_j / s_j - e_j . (phi_j P) - phi_j M phi_j'
    P = Phi' diag(1/s) G,   M = Phi' diag(alpha c / s) Phi

which is the formula of the DIVA paper's leave-one-out task in coordinates where `A` is the identity: two
passes over the samples, O(n d^2) each, and no matrix larger than d x d. `leave_out.left_out` has the same
for samples that are left out in groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.fit.passes import Sums, look, walk
from divacli.ridge.fit.products import mirrored, quadratic
from divacli.ridge.fit.scaling import require_finite
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.leave_one_out import LooResult, batch_residuals
from divacli.ridge.leave_out.losses import Loss


class LooSums:
    """The sums `P` and `M` over validation samples, and what they say of any training sample.

    Args:
        p: (r, k) float64.
        m: (r, r) float64, symmetric.
    """

    def __init__(self, p: Tensor, m: Tensor) -> None:
        self._p, self._m = p, m

    @staticmethod
    def zeros(fit: RidgeFit) -> Sums:
        """Sums of nothing, to add an `Influence` to."""
        rank, k = fit.coef.shape
        new = {"dtype": torch.float64, "device": fit.coef.device}
        return [torch.zeros(rank, k, **new), torch.zeros(rank, rank, **new)]  # type: ignore[call-overload]

    @classmethod
    def of(cls, sums: Sums) -> LooSums:
        """What was summed into `zeros`."""
        p, m = sums
        return cls(p, mirrored(m))

    def to(self, dtype: torch.dtype) -> LooSums:
        """The same sums in another dtype."""
        return LooSums(self._p.to(dtype), self._m.to(dtype))

    def through_fit(self, whitened: Tensor, residuals: Tensor) -> Tensor:
        """(b,) what samples do to the loss by moving the fit: `- e . (phi P) - phi M phi'`.

        Args:
            whitened: (b, r) `phi` of training samples.
            residuals: (b, k) their training residuals `e`.
        """
        p, m = self._p.to(whitened), self._m.to(whitened)
        return -(residuals * (whitened @ p)).sum(dim=1) - quadratic(whitened, m)

    def linear(self, whitened: Tensor) -> Tensor:
        """(b, k) `-phi P`: the part of `through_fit` that multiplies a sample's residual."""
        return -(whitened @ self._p.to(whitened))

    def pulled(self, vectors: Tensor) -> Tensor:
        """(m, r) `x P'` for rows x (m, k)."""
        return vectors @ self._p.to(vectors).T

    def coupled(self, whitened: Tensor) -> Tensor:
        """(b, r) `phi M`."""
        return whitened @ self._m.to(whitened)

    def mixed(self, whitened: Tensor, other: Tensor) -> Tensor:
        """(b,) `-2 phi M psi'` for one `psi` (r,): the cross terms of `through_fit` at `phi + psi`."""
        return -2 * (whitened @ (self._m.to(whitened) @ other))


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
    """Derivative of `L = sum_i v_i l(f_i, y_i)` with `f_i` the prediction made without sample i's group.

    Args:
        task: The samples, their weights `alpha` and the validation mask `v`.
        fit: The ridge solution at these weights.
        loss: The validation loss `l`.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    fit = fit.to(task.dtype)
    sums, own, loo = loo_sums(task, fit, loss)
    return DatasetDerivative(own + through_fit(task, fit, sums), loo)


def loo_sums(task: RidgeTask, fit: RidgeFit, loss: Loss) -> tuple[LooSums, Tensor, LooResult]:
    """The sums over samples that are left out in turn, in one pass.

    Args:
        task: The samples, their weights and the validation mask; `fit` may have been made with more samples.
        fit: A ridge solution, in the dtype to compute in.
        loss: The validation loss.

    Returns:
        The sums, each sample's own term (n,) float64 of its derivative, and the leave-one-out result.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    own = torch.zeros(len(task), dtype=torch.float64)
    loo = LooResult.empty(len(task))

    def visit(batch: Batch, sums: Sums) -> None:
        now = batch_residuals(fit, batch)
        influence = now.influence(batch, loss)
        influence.add_to(*sums)
        own[batch.rows] = influence.own.double().cpu()
        loo.record(batch, now, loss)

    sums = walk(task, lambda: LooSums.zeros(fit), visit, whole_groups=True)
    return LooSums.of(sums), world().merged(own), loo.merged()


class ValidationSums:
    """The sum `P = Zv' Gv` over separate validation samples, and what it says of any training sample.

    Args:
        p: (r, k) float64.
    """

    def __init__(self, p: Tensor) -> None:
        self._p = p

    @staticmethod
    def zeros(fit: RidgeFit) -> Sums:
        """A sum of nothing."""
        return [torch.zeros(fit.coef.shape, dtype=torch.float64, device=fit.coef.device)]

    @classmethod
    def of(cls, sums: Sums) -> ValidationSums:
        """What was summed into `zeros`."""
        return cls(*sums)

    def to(self, dtype: torch.dtype) -> ValidationSums:
        """The same sum in another dtype."""
        return ValidationSums(self._p.to(dtype))

    def through_fit(self, whitened: Tensor, residuals: Tensor) -> Tensor:
        """(b,) derivative `e . (phi P)` for training samples, as in `LooSums.through_fit`."""
        return (residuals * (whitened @ self._p.to(whitened))).sum(dim=1)

    def linear(self, whitened: Tensor) -> Tensor:
        """(b, k) `phi P`: the part of `through_fit` that multiplies a sample's residual."""
        return whitened @ self._p.to(whitened)

    def mixed(self, whitened: Tensor, other: Tensor) -> Tensor:
        """(b,) zeros: a validation sample's prediction has no denominator that a weight could move."""
        return whitened.new_zeros(len(whitened))


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
    sums, result = validation_sums(validation, fit, loss)
    return through_fit(task, fit, sums), result


def validation_sums(
    validation: RidgeTask, fit: RidgeFit, loss: Loss
) -> tuple[ValidationSums, ValidationResult]:
    """The sums over a validation set, and what the fit says of it, in one pass.

    Args:
        validation: The validation samples.
        fit: A ridge solution, in the dtype to compute in.
        loss: The validation loss.
    """
    result = ValidationResult(
        torch.zeros(len(validation), dtype=torch.float64), torch.zeros(len(validation), dtype=torch.int64)
    )

    def visit(batch: Batch, sums: Sums) -> None:
        whitened, residuals = training(fit, batch)
        predictions = batch.labels - residuals
        sums[0].add_(whitened.T @ (batch.mask[:, None] * loss.gradient(predictions, batch.labels)))
        result.loss[batch.rows] = loss.value(predictions, batch.labels).double().cpu()
        result.predicted[batch.rows] = predictions.argmax(dim=1).cpu()

    sums = walk(validation, lambda: ValidationSums.zeros(fit), visit, dtype=fit.coef.dtype)
    for vector in (result.loss, result.predicted):
        world().merged(vector)
    require_finite(result.loss, "validation losses")
    return ValidationSums.of(sums), result


def through_fit(task: RidgeTask, fit: RidgeFit, sums: LooSums | ValidationSums) -> Tensor:
    """(n,) float64 what each sample of a task does to a loss by moving the fit.

    Args:
        task: The samples.
        fit: Their ridge solution, in the dtype to compute in.
        sums: Over the validation samples.
    """
    derivative = torch.zeros(len(task), dtype=torch.float64)
    sums = sums.to(fit.coef.dtype)

    def visit(batch: Batch) -> None:
        derivative[batch.rows] = sums.through_fit(*training(fit, batch)).double().cpu()

    look(task, visit, dtype=fit.coef.dtype)
    return require_finite(world().merged(derivative), "derivatives")


def training(fit: RidgeFit, batch: Batch) -> tuple[Tensor, Tensor]:
    """Whitened features (b, r) and residuals (b, k) `t - phi coef`; for a validation sample `y - f`."""
    whitened = fit.project(batch.features)
    return whitened, batch.targets - whitened @ fit.coef
