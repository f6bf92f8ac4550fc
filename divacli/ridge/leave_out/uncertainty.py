"""How far a derivative could be from that of other samples: there are finitely many.

Without a validation set the samples are drawn and with them the fit. The standard error is that of the
jackknife over samples, with the ridge and the loss held (`divacli.ridge.leave_out.jackknife`).

With a separate validation set the fit is held, and another draw of the validation samples is meant. A
derivative is a sum over them, `dL/d alpha_j = sum_i d_ij`, so

    se_j = sqrt(N) * standard deviation of d_ij over i

with `N` their number. The standard deviation is taken over at most `MOST_SAMPLES` of them, evenly spaced.

Where samples are left out in groups the fit is held as well, and `i` is a group. That is an approximation:
the fit follows the draw, and takes back a part of what the contributions `d_ij` vary by. With the squared
loss and a weak ridge the standard error is then several times too large. A sample's leave-one-out prediction
does not depend on the weights of its own group: their `d_ij = 0` are left out.

With `phi` whitened features and the influence of validation samples as in `divacli.ridge.leave_out.left_out`,

    d_ij = -(phi_i . phi_j) (p_i . e_j) - (phi_i . phi_j) (m_i . phi_j)

`p` what they pull and `m` what they couple, which are zero for a separate validation set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.fit.passes import look
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.derivative import LooSums, loo_sums, training
from divacli.ridge.leave_out.jackknife import Jackknife
from divacli.ridge.leave_out.leave_one_out import batch_residuals
from divacli.ridge.leave_out.left_out import Influence
from divacli.ridge.leave_out.losses import Loss
from divacli.ridge.leave_out.subsample import draw, standard_errors

MOST_SAMPLES = 1024
"""Validation samples that spread is measured over with the fit held, at the most, unless a group has more."""

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

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    fit = fit.to(task.dtype)
    sums = None if validation is not None or task.groups is not None else loo_sums(task, fit, loss)[0]
    drawn = draws(task, fit, loss, order, sums, validation)
    errors = torch.zeros(len(task), dtype=torch.float64)

    def visit(batch: Batch) -> None:
        errors[batch.rows] = drawn.errors(batch, *training(fit, batch)).double().cpu()

    look(task, visit)
    return world().merged(errors)


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
class Spread:
    """Validation samples that spread is measured over, on the computing device.

    Attributes:
        influence: What they contribute to derivatives.
        unit: (m,) int64 number of the draw in [0, u) that a sample belongs to: its group, or itself.
        groups: (u,) int64 what the samples of each draw have in common: their group, or their row.
        total: Number of draws that the loss sums over.
        own: Whether training samples are validation samples as well, each without a share in its own
            derivative; of which the groups are.
    """

    influence: Influence
    unit: Tensor
    groups: Tensor
    total: int
    own: bool

    def errors(self, batch: Batch, whitened: Tensor, residuals: Tensor) -> Tensor:
        """Standard errors (b,) of the derivatives of training samples.

        Args:
            batch: The samples.
            whitened: (b, r) their `phi`.
            residuals: (b, k) their training residuals.
        """
        products = self.influence.whitened @ whitened.T
        pull = self.influence.coupled(products, whitened)
        pull.addmm_(self.influence.pulled, residuals.T)
        parts = products.mul_(pull).neg_()
        count = len(self.groups)
        if count < len(self.unit):
            parts = parts.new_zeros(count, parts.shape[1]).index_add_(0, self.unit, parts)
        others = torch.full_like(parts[0], count)
        if self.own:
            assert batch.groups is not None  # without groups errors are those of a jackknife
            mine = self.groups[:, None] == batch.groups
            parts = parts.masked_fill_(mine, 0)
            others = others - mine.sum(dim=0)
        return standard_errors(parts, others, self.total)


def draws(
    task: RidgeTask,
    fit: RidgeFit,
    loss: Loss,
    order: Tensor,
    sums: LooSums | None,
    validation: RidgeTask | None = None,
) -> Jackknife | Spread:
    """Draw the samples that standard errors are estimated from.

    Args:
        task: As of `derivative_errors`, and so are the others.
        fit: In the task's dtype.
        loss: The validation loss.
        order: Of the validation samples.
        sums: Of the derivative; not needed with groups or a separate validation set.
        validation: A separate validation set.
    """
    if validation is None and task.groups is None:
        assert sums is not None
        return Jackknife.of(task, fit, loss, order, sums)
    judged = task if validation is None else validation
    drawn = draw(judged, order, MOST_SAMPLES)
    batch = judged.batch(drawn.rows)
    if validation is None:
        influence = batch_residuals(fit, batch).influence(batch, loss)
    else:
        whitened, residuals = training(fit, batch)
        # dL/d alpha_j = e_j . (phi_j P) has not the minus sign of a sample that is left out.
        pulled = -batch.mask[:, None] * loss.gradient(batch.labels - residuals, batch.labels)
        nothing = whitened.new_zeros(len(whitened))
        influence = Influence(whitened, pulled, nothing, nothing, None)
    places = drawn.unit.to(task.device), drawn.groups.to(task.device)
    return Spread(influence, *places, drawn.total, validation is None)
