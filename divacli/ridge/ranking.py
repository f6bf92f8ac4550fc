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

from divacli.ridge.derivative import LooSums
from divacli.ridge.leave_one_out import residuals_of_whitened
from divacli.ridge.losses import Loss
from divacli.ridge.spectrum import Spectrum
from divacli.ridge.task import RidgeTask

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
    task: RidgeTask, spectrum: Spectrum, best: float, loss: Loss, seed: int = 0
) -> RankingChoice:
    """Choose the ridge for ranking samples by the derivative of the leave-one-out loss, in one pass.

    Args:
        task: The problem; samples with a positive mask are the validation samples that are halved.
        spectrum: Its decomposition.
        best: The ridge with the smallest LOO loss.
        loss: The validation loss.
        seed: Of the split into halves, which is balanced within every class.
    """
    half = split_in_halves(task.labels, seed)
    candidates = torch.tensor([best * factor for factor in FACTORS], dtype=torch.float64)
    fits = [spectrum.fit(float(ridge)).to(task.dtype) for ridge in candidates]
    sums = [(LooSums(fit, loss), LooSums(fit, loss)) for fit in fits]
    judged = torch.arange(0, len(task), max(1, -(-len(task) // JUDGED)))
    own = torch.zeros(len(fits), 2, len(judged), dtype=torch.float64)
    kept = []
    for batch in task.batches():
        inside = (judged >= batch.rows.start) & (judged < batch.rows.stop)
        chosen = (judged[inside] - batch.rows.start).to(task.device)
        in_half = half[batch.rows].to(task.device)
        kept.append((batch.features[chosen], batch.targets[chosen], inside))
        rotated = spectrum.rotate(batch.features)
        for index, fit in enumerate(fits):
            now = residuals_of_whitened(fit, fit.whiten(rotated), batch)
            for side in (0, 1):
                rows = (in_half == side).nonzero().squeeze(1)
                term = torch.zeros_like(batch.weights)
                term[rows] = sums[index][side].add(
                    now[rows], batch.labels[rows], batch.weights[rows], batch.mask[rows]
                )
                own[index, side, inside] = term[chosen].double().cpu()
    for features, targets, inside in kept:
        for index, fit in enumerate(fits):
            whitened = fit.whiten(spectrum.rotate(features))
            residuals = targets - whitened @ fit.coef
            for side in (0, 1):
                own[index, side, inside] += sums[index][side].through_fit(whitened, residuals).double().cpu()
    agreement = torch.stack(
        [
            (correlation(own[i, 1], own[0, 0]) + correlation(own[i, 0], own[0, 1])) / 2
            for i in range(len(fits))
        ]
    )
    return RankingChoice(float(candidates[agreement.argmax()]), candidates, agreement)


def split_in_halves(labels: Tensor, seed: int) -> Tensor:
    """A random half for every sample, (n,) of 0 and 1, balanced within every class.

    Args:
        labels: (n,) int64 class numbers.
        seed: Of the random order.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(labels[order], stable=True)]
    half = torch.empty(len(labels), dtype=torch.int64)
    half[order] = torch.arange(len(labels)) % 2
    return half


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of two vectors; 0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return torch.where(scale > 0, (a @ b) / scale, 0.0)
