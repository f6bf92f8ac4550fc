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

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.derivative import ValidationSums
from divacli.ridge.folds import split_in_folds
from divacli.ridge.leave_one_out import residuals_of_whitened
from divacli.ridge.losses import Loss
from divacli.ridge.spectrum import RidgeFit, Spectrum
from divacli.ridge.task import Batch, RidgeTask, positions
from divacli.ridge.walk import Sums, walk

FACTORS = (1.0, 10**0.5, 10.0, 10**1.5, 100.0)
"""Candidates, as multiples of the LOO-optimal ridge; the correlation is flat around its maximum."""

JUDGED = 256
"""Training samples that the correlation is taken over, evenly spaced; all validation samples count. Of so few
no matrix `M` is needed: `phi_j M phi_j'` is a sum of squares of products with the validation samples."""


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
    rows = order[:: max(1, -(-len(task) // JUDGED))].sort().values
    judged = task.batch(rows)
    rotated = spectrum.rotate(judged.features)
    sides = [_Judged(fit, fit.whiten(rotated), judged.targets) for fit in fits]
    if validation is None:
        half = split_in_folds(task.labels, order, seed, 2, task.groups)
        halves = _loo_halves(task, spectrum, fits, loss, half, sides, rows)
    else:
        validation_order = torch.arange(len(validation)) if validation_order is None else validation_order
        half = split_in_folds(validation.labels, validation_order, seed, 2, validation.groups)
        halves = _validation_halves(validation, spectrum, fits, loss, half, sides)
    best_a, best_b = halves[0]
    agreement = torch.stack([(correlation(b, best_a) + correlation(a, best_b)) / 2 for a, b in halves])
    return RankingChoice(float(candidates[agreement.argmax()]), candidates, agreement)


class _Judged:
    """The judged samples under one fit.

    Args:
        fit: The ridge solution.
        whitened: (m, r) their `phi`.
        targets: (m, k) what they are fitted to.
    """

    def __init__(self, fit: RidgeFit, whitened: Tensor, targets: Tensor) -> None:
        self.whitened = whitened
        self.residuals = targets - whitened @ fit.coef


def _loo_halves(
    task: RidgeTask,
    spectrum: Spectrum,
    fits: list[RidgeFit],
    loss: Loss,
    half: Tensor,
    judged: list[_Judged],
    rows: Tensor,
) -> Tensor:
    """Derivatives of each half's LOO loss at each fit for the judged samples `rows`, (C, 2, m) float64."""
    own = torch.zeros(len(fits), 2, len(rows), dtype=torch.float64)

    def visit(batch: Batch, sums: Sums) -> None:
        pulls, squares = sums
        inside, chosen = positions(batch.rows, rows)
        side = torch.stack([half[batch.rows] == number for number in (0, 1)])
        in_half, places = side.to(batch.features), chosen.to(task.device)
        rotated, found = spectrum.rotate(batch.features), []
        for index, (fit, part) in enumerate(zip(fits, judged, strict=True)):
            now = residuals_of_whitened(fit, fit.whiten(rotated), batch)
            influence = now.influence(batch, loss)
            products = influence.whitened @ part.whitened.T
            squares[index] += in_half @ (products * influence.coupled(products, part.whitened))
            for number in (0, 1):
                pulls[index, number] += products.T @ (in_half[number, :, None] * influence.pulled)
            found.append(influence.own[places])
        own[:, :, inside] = side[:, chosen] * torch.stack(found).double().cpu()[:, None]

    m, k = judged[0].residuals.shape
    pulls, squares = walk(
        task, lambda: _zeros(task, (len(fits), 2, m, k), (len(fits), 2, m)), visit, whole_groups=True
    )
    found = own.new_zeros(own.shape)
    for index, part in enumerate(judged):
        found[index] = -((pulls[index] * part.residuals).sum(dim=2) + squares[index]).cpu()
    return found + world().merged(own)


def _validation_halves(
    validation: RidgeTask,
    spectrum: Spectrum,
    fits: list[RidgeFit],
    loss: Loss,
    half: Tensor,
    judged: list[_Judged],
) -> Tensor:
    """Derivatives of each half of a validation set for the judged samples, (C, 2, m) float64."""

    def visit(batch: Batch, sums: Sums) -> None:
        in_half = torch.stack([half[batch.rows] == number for number in (0, 1)]).to(batch.features)
        rotated = spectrum.rotate(batch.features)
        for index, fit in enumerate(fits):
            whitened = fit.whiten(rotated)
            predictions = batch.labels - batch.targets + whitened @ fit.coef
            gradient = batch.mask[:, None] * loss.gradient(predictions, batch.labels)
            for number in (0, 1):
                sums[0][index, number] += whitened.T @ (in_half[number, :, None] * gradient)

    shape = (len(fits), 2, *fits[0].coef.shape)
    (p,) = walk(validation, lambda: _zeros(validation, shape), visit)
    found = [
        [ValidationSums(side).through_fit(part.whitened, part.residuals).double().cpu() for side in sides]
        for part, sides in zip(judged, p, strict=True)
    ]
    return torch.stack([torch.stack(sides) for sides in found])


def _zeros(task: RidgeTask, *shapes: tuple[int, ...]) -> Sums:
    return [torch.zeros(shape, dtype=torch.float64, device=task.device) for shape in shapes]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of two vectors; 0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return torch.where(scale > 0, (a @ b) / scale, 0.0)
