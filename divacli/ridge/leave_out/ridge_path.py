"""Choosing the ridge: the leave-one-out loss at many values of lambda from one eigendecomposition.

The path is walked twice: at values two to a decade over seven decades, and at values eight to a decade around
the best of them. The loss is a mean over samples, and of very many a part tells where it is smallest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.ridge.fit.passes import Sums, walk
from divacli.ridge.fit.scaling import require_finite
from divacli.ridge.fit.spectrum import Spectrum
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.left_out import GroupedRows
from divacli.ridge.leave_out.subsample import draw

DECADES = 7
"""Of the path, up to ten times the largest eigenvalue."""

_COARSE, _FINE = 2, 8
"""Values a decade: everywhere, and around the best."""

_AT_ONCE = 5
"""Ridges whose residuals are in memory together."""

PATH_SAMPLES = 65_536
"""Validation samples that the loss is a mean over, at the most. Whatever else is said of the loss at the
chosen ridge is over all."""


@dataclass(frozen=True)
class RidgePath:
    """The squared leave-one-out loss along a path of ridges, over samples with a positive mask.

    Attributes:
        ridges: (R,) float64, ascending.
        loss: (R,) mean LOO loss, weighted by the mask.
    """

    ridges: Tensor
    loss: Tensor

    @property
    def best(self) -> int:
        """Index of the smallest mean loss; of equals the largest ridge."""
        return int((self.loss == self.loss.min()).nonzero()[-1])

    @property
    def ridge(self) -> float:
        """The lambda with the smallest mean loss; of equals the largest."""
        return float(self.ridges[self.best])

    @property
    def at_edge(self) -> bool:
        """Whether the smallest loss lies at an end of the path, so that the optimum may lie beyond it."""
        return self.best in (0, len(self.ridges) - 1)


def ridge_grid(spectrum: Spectrum) -> Tensor:
    """The coarse path: two ridges to a decade over `DECADES`, up to ten times the largest eigenvalue.

    Raises:
        SolveError: The features do not vary at all.
    """
    largest = float(spectrum.eigenvalues[-1]) if len(spectrum.eigenvalues) else 0.0
    if largest <= 0:
        raise SolveError(
            "all samples with a positive weight have the same features",
            expected="features that differ between samples, also after scaling",
            hint=Advice(
                "check the checkpoint and the feature layer; where features differ in length alone, as a "
                "single one does, use {scaling} standard"
            ),
        )
    return 10 * largest * torch.logspace(-DECADES, 0, _COARSE * DECADES + 1, dtype=torch.float64)


def ridge_path(
    task: RidgeTask, spectrum: Spectrum, ridges: Tensor | None = None, *, order: Tensor | None = None
) -> RidgePath:
    """LOO loss at every ridge, in two passes over the samples: O(n d^2 + R n d k), n at most `PATH_SAMPLES`.

    Args:
        task: The problem; its mask says which samples count.
        spectrum: Its decomposition.
        ridges: (R,) ascending float64, which are walked once; by default the coarse path and then the fine
            one around its best.
        order: (n,) row numbers in the order that samples are drawn in, where there are very many; by default
            the rows' own.
    """
    if float(task.validation_mask.sum()) <= 0:
        raise SolveError("no sample counts in the validation loss", expected="a positive validation mask")
    if len(task) > PATH_SAMPLES:
        order = torch.arange(len(task)) if order is None else order
        task = task.select(draw(task, order, PATH_SAMPLES).rows)
    if ridges is not None:
        return RidgePath(ridges, _losses(task, spectrum, ridges))
    grid = ridge_grid(spectrum)
    coarse = RidgePath(grid, _losses(task, spectrum, grid))
    fine = _between(coarse)
    ridges, losses = torch.cat([grid, fine]), torch.cat([coarse.loss, _losses(task, spectrum, fine)])
    ascending = ridges.argsort()
    return RidgePath(ridges[ascending], losses[ascending])


def _between(coarse: RidgePath) -> Tensor:
    """The fine path's values between the best of the coarse one and its neighbours."""
    exponents = torch.arange(1 - _FINE // _COARSE, _FINE // _COARSE, dtype=torch.float64) / _FINE
    ridges = coarse.ridges[coarse.best] * 10 ** exponents[exponents != 0]
    return ridges[(ridges > coarse.ridges[0]) & (ridges < coarse.ridges[-1])]


def _losses(task: RidgeTask, spectrum: Spectrum, ridges: Tensor) -> Tensor:
    """Mean LOO loss at each ridge, (R,) float64 on the CPU."""
    inverse = 1 / spectrum.damped(ridges.to(task.device))
    k = spectrum.cross.shape[1]
    together = [slice(i, min(i + _AT_ONCE, len(ridges))) for i in range(0, len(ridges), _AT_ONCE)]
    # (r, R k): some ridges in one product are faster than one after the other.
    coefs = [
        (inverse[some].T[:, :, None] * spectrum.cross[:, None]).to(task.dtype).flatten(1) for some in together
    ]

    def zeros() -> Sums:
        return [torch.zeros(len(ridges), dtype=torch.float64, device=task.device)]

    def visit(batch: Batch, sums: Sums) -> None:
        rotated = spectrum.rotate(batch.features)
        square_of_left_out = _squares(spectrum, inverse, batch, rotated)
        targets = batch.targets
        if spectrum.target_mean is not None:
            targets = targets - spectrum.target_mean.to(targets)
        for some, coef in zip(together, coefs, strict=True):
            fitted = (rotated @ coef).view(len(targets), -1, k)
            losses = square_of_left_out(some, targets[:, None] - fitted)
            sums[0][some] += batch.mask.double() @ losses.double()

    (sums,) = walk(task, zeros, visit, whole_groups=True)
    return require_finite(sums.cpu(), "leave-one-out losses") / float(task.validation_mask.sum())


def _squares(
    spectrum: Spectrum, inverse: Tensor, batch: Batch, rotated: Tensor
) -> Callable[[slice, Tensor], Tensor]:
    """What makes squared LOO residuals (b, R) of training residuals (b, R, k) at some of the ridges.

    Where nothing else determines a prediction they become large: the path goes on.

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
        return lambda some, residuals: (
            torch.linalg.vector_norm(residuals, dim=2) / denominator[:, some]
        ).square()
    scale = inverse.sqrt()
    if spectrum.target_mean is not None:
        bias = torch.ones_like(rotated[:, :1])
        rotated = torch.cat([rotated, bias], dim=1)
        scale = torch.cat([scale, scale.new_full((len(scale), 1), spectrum.total_weight**-0.5)], dim=1)
    groups = GroupedRows(rotated, batch.weights, batch.blocks)

    def together(some: slice, residuals: Tensor) -> Tensor:
        left_out = [
            groups.together(factors).residuals(residual)
            for factors, residual in zip(scale[some], residuals.unbind(dim=1), strict=True)
        ]
        return torch.stack(left_out, dim=1).square().sum(dim=2)

    return together
