"""How far a derivative could be from that of the expected loss: validation samples are finitely many.

A derivative is a sum over validation samples, `dL/d alpha_j = sum_i d_ij`, and another draw of them would
give another sum. With the fit held fixed and the validation samples as independent draws, its standard error
is

    se_j = sqrt(N) * standard deviation of d_ij over i

with `N` the number of validation samples; of samples that are left out in groups, of groups. The standard
deviation is taken over at most `MOST_SAMPLES` of them, evenly spaced, which costs about one Gram product. A
sample's own leave-one-out prediction does not depend on its weight: `d_jj = 0` is left out.

The fit is not held fixed by another draw where the validation samples are those it is made from: in leave-
one-out their contributions nearly cancel, as the normal equations say, and a fit to others would make theirs
cancel as well. So there the standard error is an upper bound, several times what new samples would show; with
a separate validation set it is what it says.

With `phi` whitened features and the influence of validation samples as in `divacli.ridge.groups`,

    d_ij = -(phi_i . phi_j) (p_i . e_j) - (phi_i . phi_j) (m_i . phi_j)

`p` what they pull and `m` what they couple, which are zero for a separate validation set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.leave_one_out import batch_residuals
from divacli.ridge.losses import Loss
from divacli.ridge.spectrum import RidgeFit
from divacli.ridge.task import Batch, RidgeTask

MOST_SAMPLES = 2048
"""Validation samples that standard errors are estimated from, at the most, unless one group has more."""

FALSE_DISCOVERIES = 0.05
"""Share of derivatives called significant that may be so by chance (Benjamini and Hochberg 1995)."""


def derivative_errors(
    task: RidgeTask, fit: RidgeFit, loss: Loss, order: Tensor, validation: RidgeTask | None = None
) -> Tensor:
    """Standard error of every derivative, (n,) float64, in its units; NaN from less than two samples.

    Args:
        task: The training samples; without `validation` they are left out in turn.
        fit: Their ridge solution, that of the derivatives.
        loss: The validation loss.
        order: Row numbers of the validation samples in an order that does not depend on how they are stored.
        validation: A separate validation set.
    """
    fit = fit.to(task.dtype)
    drawn = (
        _loo_draw(task, fit, loss, order)
        if validation is None
        else _validation_draw(validation, fit, loss, order)
    )
    errors = torch.zeros(len(task), dtype=torch.float64)
    for batch in task.batches():
        errors[batch.rows] = drawn.errors(task, fit, batch, own=validation is None).double().cpu()
    return errors


def significant(derivative: Tensor, errors: Tensor) -> Tensor:
    """Which derivatives differ from zero beyond noise, (n,) bool, by the procedure of Benjamini and Hochberg.

    Of those that are called significant at most a share `FALSE_DISCOVERIES` is so by chance, on average. The
    sign of the derivative says which are harmful.

    Args:
        derivative: (n,) float64.
        errors: (n,) float64 their standard errors; NaN is never significant.
    """
    # A derivative without error that is not zero is beyond any noise; zero never is.
    deviation = torch.where(
        errors > 0, derivative.abs() / errors, torch.where(derivative == 0, 0.0, math.inf)
    )
    chance = torch.erfc(torch.where(errors.isnan(), 0.0, deviation) / math.sqrt(2))
    ranked = chance.sort()
    n = len(chance)
    passed = ranked.values <= FALSE_DISCOVERIES * torch.arange(1, n + 1, dtype=torch.float64) / n
    limit = ranked.values[passed][-1] if bool(passed.any()) else -1.0
    return chance <= limit


@dataclass(frozen=True)
class _Draw:
    """Validation samples that spread is measured over, on the computing device.

    Attributes:
        whitened: (m, r) `phi`.
        pulled: (m, k) `p`.
        coupled: (m, r) `m`, or None where it is zero.
        unit: (m,) int64 number of the draw in [0, u) that a sample belongs to: its group, or itself.
        groups: (u,) int64 what the samples of each draw have in common: their group, or their row.
        total: Number of draws that the loss sums over.
    """

    whitened: Tensor
    pulled: Tensor
    coupled: Tensor | None
    unit: Tensor
    groups: Tensor
    total: int

    def errors(self, task: RidgeTask, fit: RidgeFit, batch: Batch, *, own: bool) -> Tensor:
        """Standard errors (b,) of the derivatives of training samples.

        Args:
            task: They are of.
            fit: The ridge solution.
            batch: The training samples, consecutive.
            own: Whether they are validation samples as well, each without a share in its own derivative.
        """
        whitened = fit.project(batch.features)
        residuals = batch.targets - whitened @ fit.coef
        pull = self.pulled @ residuals.T
        if self.coupled is not None:
            pull += self.coupled @ whitened.T
        parts = -(self.whitened @ whitened.T) * pull
        count = len(self.groups)
        if count < len(self.unit):
            parts = parts.new_zeros(count, parts.shape[1]).index_add_(0, self.unit, parts)
        others = torch.full_like(parts[0], count)
        if own:
            of = torch.arange(len(task))[batch.rows] if task.groups is None else task.groups[batch.rows]
            mine = self.groups[:, None] == of.to(self.groups)
            parts = parts.masked_fill(mine, 0)
            others = others - mine.sum(dim=0)
        # Sums over draws of the deviations from the mean over the other draws.
        mean = parts.sum(dim=0) / others.clamp_min(1)
        square = (parts.square().sum(dim=0) - others * mean.square()).clamp_min(0)
        # Of a single draw nothing is known of the spread: 0 / 0.
        return (self.total * torch.where(others < 2, 0.0, square) / (others - 1).clamp_min(0)).sqrt()


def _loo_draw(task: RidgeTask, fit: RidgeFit, loss: Loss, order: Tensor) -> _Draw:
    batch, unit, groups, total = _drawn(task, order)
    influence = batch_residuals(fit, batch).influence(batch, loss)
    return _Draw(influence.whitened, influence.pulled, influence.coupled, unit, groups, total)


def _validation_draw(validation: RidgeTask, fit: RidgeFit, loss: Loss, order: Tensor) -> _Draw:
    batch, unit, groups, total = _drawn(validation, order)
    whitened = fit.project(batch.features)
    predictions = batch.labels - batch.targets + whitened @ fit.coef
    # dL/d alpha_j = e_j . (phi_j P) has not the minus sign of a sample that is left out.
    pulled = -batch.mask[:, None] * loss.gradient(predictions, batch.labels)
    return _Draw(whitened, pulled, None, unit, groups, total)


def _drawn(task: RidgeTask, order: Tensor) -> tuple[Batch, Tensor, Tensor, int]:
    """Evenly spaced whole groups of validation samples; `unit`, `groups` and `total` of a `_Draw`."""
    order = order[task.validation_mask[order] > 0]
    groups, number = task.numbered_groups()
    # In the order of their first samples.
    first = torch.full((len(task),), len(task)).scatter_reduce(
        0, number[order], torch.arange(len(order)), "amin"
    )
    numbers = first.argsort(stable=True)[: int((first < len(task)).sum())]
    chosen = numbers[:: max(1, -(-len(order) // MOST_SAMPLES))].sort().values
    rows = torch.isin(number, chosen).nonzero()[:, 0]
    unit = torch.searchsorted(chosen, number[rows]).to(task.device)
    of_group = torch.empty(len(task), dtype=torch.int64)
    of_group[number] = groups
    return task.batch(rows), unit, of_group[chosen].to(task.device), len(numbers)
