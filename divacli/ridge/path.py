"""Choosing the ridge: the leave-one-out loss at many values of lambda from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.groups import GroupedRows
from divacli.ridge.spectrum import Spectrum
from divacli.ridge.task import Batch, RidgeTask

PATH_LENGTH = 29
"""Values of lambda on the path: four to a decade over seven decades."""


@dataclass(frozen=True)
class RidgePath:
    """The squared leave-one-out loss along a path of ridges, over samples with a positive mask.

    Attributes:
        ridges: (R,) float64, ascending.
        loss: (R,) mean LOO loss, weighted by the mask.
        error: (R,) share of samples whose LOO prediction is another class, weighted by the mask.
    """

    ridges: Tensor
    loss: Tensor
    error: Tensor

    @property
    def best(self) -> int:
        """Index of the smallest mean loss; of equals the largest ridge."""
        return int((self.loss == self.loss.min()).nonzero()[-1])

    @property
    def at_edge(self) -> bool:
        """Whether the smallest loss lies at an end of the path, so that the optimum may lie beyond it."""
        return self.best in (0, len(self.ridges) - 1)


def ridge_grid(spectrum: Spectrum) -> Tensor:
    """`PATH_LENGTH` ridges, four to a decade, up to ten times the largest eigenvalue.

    Raises:
        SolveError: The features do not vary at all.
    """
    largest = float(spectrum.eigenvalues[-1]) if len(spectrum.eigenvalues) else 0.0
    # Equal features differ from their mean by rounding; no more than that is no variation.
    rounding = 64 * torch.finfo(torch.float64).eps * float(spectrum.mean.norm())
    if largest <= spectrum.total_weight * rounding**2:
        raise SolveError(
            "all samples with a positive weight have the same features",
            expected="features that differ between samples",
            hint="check the checkpoint and the feature layer",
        )
    return 10 * largest * torch.logspace(-7, 0, PATH_LENGTH, dtype=torch.float64)


def ridge_path(task: RidgeTask, spectrum: Spectrum, ridges: Tensor | None = None) -> RidgePath:
    """LOO loss and error at every ridge, in one pass over the samples: O(n d^2 + R n d k).

    Args:
        task: The problem; its mask says which samples count.
        spectrum: Its decomposition.
        ridges: (R,) ascending float64, default `ridge_grid(spectrum)`.
    """
    ridges = (ridge_grid(spectrum) if ridges is None else ridges).to(task.device)
    inverse = 1 / spectrum.damped(ridges)
    coefs = (inverse[:, :, None] * spectrum.cross).to(task.dtype)
    n_ridges = len(ridges)
    sums = torch.zeros(n_ridges, dtype=torch.float64, device=task.device)
    wrong = torch.zeros_like(sums)
    total = 0.0
    for batch in task.whole_groups():
        rotated = spectrum.rotate(batch.features)
        leave_out = _leave_out(spectrum, inverse, batch, rotated)
        losses = torch.empty(len(rotated), n_ridges, dtype=torch.float64, device=task.device)
        truth = batch.labels.argmax(dim=1)
        for index in range(n_ridges):
            fitted = rotated @ coefs[index]
            if spectrum.target_mean is not None:
                fitted += spectrum.target_mean.to(fitted)
            residual = leave_out(index, batch.targets - fitted)
            losses[:, index] = residual.square().sum(dim=1).double()
            wrong[index] += batch.mask.double() @ ((batch.labels - residual).argmax(dim=1) != truth).double()
        mask = batch.mask.double()
        sums += mask @ losses
        total += float(mask.sum())
    if total <= 0:
        raise SolveError("no sample counts in the validation loss", expected="a positive validation mask")
    return RidgePath(ridges.cpu(), sums.cpu() / total, wrong.cpu() / total)


def _leave_out(
    spectrum: Spectrum, inverse: Tensor, batch: Batch, rotated: Tensor
) -> Callable[[int, Tensor], Tensor]:
    """What makes LOO residuals (b, k) of training residuals at the ridge of an index.

    Where nothing else determines a prediction its residuals become large: the path goes on.

    Args:
        spectrum: The decomposition.
        inverse: (R, r) `1 / (eigenvalue + ridge)`.
        batch: Whole groups.
        rotated: (b, r) their features in the eigenbasis.
    """
    if batch.blocks is None:
        leverage = rotated.square() @ inverse.T.to(rotated)
        if spectrum.target_mean is not None:
            leverage += 1 / spectrum.total_weight
        denominator = (1 - batch.weights[:, None] * leverage).clamp_min(torch.finfo(rotated.dtype).eps)
        return lambda index, residual: residual / denominator[:, index, None]
    scale = inverse.sqrt()
    if spectrum.target_mean is not None:
        bias = torch.ones_like(rotated[:, :1])
        rotated = torch.cat([rotated, bias], dim=1)
        scale = torch.cat([scale, scale.new_full((len(scale), 1), spectrum.total_weight**-0.5)], dim=1)
    groups = GroupedRows(rotated, batch.weights, batch.blocks)
    return lambda index, residual: groups.together(scale[index]).residuals(residual)
