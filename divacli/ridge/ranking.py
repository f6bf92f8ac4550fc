"""The ridge to rank samples at: the one whose derivative is reproduced best on samples it has not seen.

At the ridge with the smallest leave-one-out loss, single derivatives are noisy: each is a sum over finitely
many validation samples of what one training sample does to them, and the less the fit is smoothed the fewer
of them matter. A larger ridge averages over more of them but answers a slightly different question. Both
errors are weighed by halving the validation samples: with `D_A, D_B` the derivatives of the two halves'
losses, the ridge maximises the correlation over training samples of `D_B(ridge)` with `D_A(LOO optimum)`, in
both directions. The halves share no validation sample, so noise of the one cannot be matched by the other:
what correlates is the derivative of the loss on new samples at the LOO optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.derivative import LooSums, ValidationSums
from divacli.ridge.folds import split_in_folds
from divacli.ridge.leave_one_out import residuals_of_whitened
from divacli.ridge.losses import Loss
from divacli.ridge.spectrum import RidgeFit, Spectrum
from divacli.ridge.task import RidgeTask, positions

FACTORS = (1.0, 10**0.5, 10.0, 10**1.5, 100.0, 10**2.5)
"""Candidates, as multiples of the LOO-optimal ridge; the correlation is flat around its maximum."""

JUDGED = 4096
"""Training samples that the correlation is taken over, evenly spaced; all validation samples count."""


@dataclass(frozen=True)
class RankingChoice:
    """The ranking ridge and what it was chosen by.

    Attributes:
        ridge: The chosen lambda.
        candidates: (C,) ridges that were compared, ascending, the LOO optimum first.
        agreement: (C,) correlation between a half's derivative at the candidate and the other half's at
            the LOO optimum.
    """

    ridge: float
    candidates: Tensor
    agreement: Tensor


def choose_ranking_ridge(
    task: RidgeTask,
    spectrum: Spectrum,
    best: float,
    loss: Loss,
    seed: int = 0,
    *,
    validation: RidgeTask | None = None,
    order: Tensor | None = None,
    validation_order: Tensor | None = None,
) -> RankingChoice:
    """Choose the ridge for ranking samples by the derivative of the leave-one-out or a validation loss.

    Args:
        task: The training samples; those with a positive mask are the validation samples of the LOO loss.
        spectrum: Their decomposition.
        best: The ridge with the smallest LOO loss.
        loss: The validation loss.
        seed: Of the split of the validation samples into halves, balanced within every class.
        validation: A separate validation set, whose loss is differentiated in place of the LOO loss.
        order: (n,) row numbers of `task` in the order that samples are drawn in; by default the rows' own. An
            order by name makes the choice independent of how the rows are arranged.
        validation_order: (m,) likewise of `validation`.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    order = torch.arange(len(task)) if order is None else order
    candidates = torch.tensor([best * factor for factor in FACTORS], dtype=torch.float64)
    fits = [spectrum.fit(float(ridge)).to(task.dtype) for ridge in candidates]
    judged = order[:: max(1, -(-len(task) // JUDGED))].sort().values
    if validation is None:
        half = split_in_folds(task.labels, order, seed, 2, task.groups)
        halves = _loo_halves(task, spectrum, fits, loss, half, judged)
    else:
        validation_order = torch.arange(len(validation)) if validation_order is None else validation_order
        half = split_in_folds(validation.labels, validation_order, seed, 2, validation.groups)
        halves = _validation_halves(task, validation, spectrum, fits, loss, half, judged)
    best_a, best_b = halves[0]
    agreement = torch.stack([(correlation(b, best_a) + correlation(a, best_b)) / 2 for a, b in halves])
    return RankingChoice(float(candidates[agreement.argmax()]), candidates, agreement)


def _loo_halves(
    task: RidgeTask, spectrum: Spectrum, fits: list[RidgeFit], loss: Loss, half: Tensor, judged: Tensor
) -> Tensor:
    """Derivatives of each half's LOO loss at each fit for the judged samples, (C, 2, m) float64."""
    sums = [(LooSums(fit), LooSums(fit)) for fit in fits]
    derivative = torch.zeros(len(fits), 2, len(judged), dtype=torch.float64)
    for batch in task.whole_groups():
        inside, chosen = positions(batch.rows, judged)
        in_half = half[batch.rows].to(task.device)
        rotated = spectrum.rotate(batch.features)
        for index, fit in enumerate(fits):
            now = residuals_of_whitened(fit, fit.whiten(rotated), batch)
            influence = now.influence(batch, loss)
            for side in (0, 1):
                sums[index][side].add(influence[(in_half == side).nonzero().squeeze(1)])
                own = torch.where(in_half == side, influence.own, 0)
                derivative[index, side, inside] = own.cpu()[chosen].double()
    return derivative + _through_fits(task, spectrum, fits, sums, judged)


def _validation_halves(
    task: RidgeTask,
    validation: RidgeTask,
    spectrum: Spectrum,
    fits: list[RidgeFit],
    loss: Loss,
    half: Tensor,
    judged: Tensor,
) -> Tensor:
    """Derivatives of each half of a validation set, (C, 2, m) float64."""
    sums = [(ValidationSums(fit, loss), ValidationSums(fit, loss)) for fit in fits]
    for batch in validation.batches():
        in_half = half[batch.rows].to(task.device)
        rotated = spectrum.rotate(batch.features)
        for index, fit in enumerate(fits):
            whitened = fit.whiten(rotated)
            predictions = batch.labels - batch.targets + whitened @ fit.coef
            for side in (0, 1):
                mask = torch.where(in_half == side, batch.mask, 0)
                sums[index][side].add(whitened, predictions, batch.labels, mask)
    return _through_fits(task, spectrum, fits, sums, judged)


def _through_fits(
    task: RidgeTask,
    spectrum: Spectrum,
    fits: list[RidgeFit],
    sums: Sequence[tuple[LooSums | ValidationSums, LooSums | ValidationSums]],
    judged: Tensor,
) -> Tensor:
    """What the judged samples do to each half's loss by moving each fit, (C, 2, m) float64."""
    found = torch.zeros(len(fits), 2, len(judged), dtype=torch.float64)
    for batch in task.batches():
        inside, places = positions(batch.rows, judged)
        chosen = places.to(task.device)
        rotated, targets = spectrum.rotate(batch.features[chosen]), batch.targets[chosen]
        for index, fit in enumerate(fits):
            whitened = fit.whiten(rotated)
            residuals = targets - whitened @ fit.coef
            for side in (0, 1):
                found[index, side, inside] = sums[index][side].through_fit(whitened, residuals).double().cpu()
    return found


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of two vectors; 0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return torch.where(scale > 0, (a @ b) / scale, 0.0)
