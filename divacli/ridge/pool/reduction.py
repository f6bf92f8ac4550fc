"""Choosing from a pool by taking away: everything is in, and what harms goes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from divacli.ridge.fit.moments import decompose
from divacli.ridge.fit.rows import Stacked
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.leave_out.calibration import RobustCrossEntropy, calibrate, calibration_rows
from divacli.ridge.leave_out.derivative import loo_derivative
from divacli.ridge.leave_out.leave_one_out import leave_one_out, loo_predictions
from divacli.ridge.leave_out.losses import Loss, SquaredLoss
from divacli.ridge.leave_out.ridge_path import ridge_path
from divacli.ridge.pool.extension import CHOICE_FACTOR, Candidates, State, trusted


def merged(core: RidgeTask, pool: RidgeTask, weights: Tensor) -> RidgeTask:
    """Core and pool as one task, in which the pool has these weights and does not count as validation.

    Args:
        core: The core.
        pool: The pool, every sample a group of its own.
        weights: (m,) float64 of the pool.
    """
    groups = None
    if core.groups is not None:
        alone = core.groups.max() + 1 + torch.arange(len(pool))
        groups = torch.cat([core.groups, alone])
    offset = None
    if core.offset is not None and pool.offset is not None:
        offset = Stacked(core.offset, pool.offset)
    return replace(
        core,
        features=Stacked(core.features, pool.features),
        labels=torch.cat([core.labels, pool.labels]),
        weights=torch.cat([core.weights, weights]),
        validation_mask=torch.cat([core.validation_mask, torch.zeros(len(pool), dtype=torch.float64)]),
        groups=groups,
        offset=offset,
        numbers=None,
    )


class Reduction:
    """The opposite walk: the whole pool is in, and what harms the core there goes. Used as an `Extension` is.

    It is for a core with a single sample of some class: left out in turn, that sample is predicted by a fit
    that never saw its class, unless the pool shows it.

    Args:
        core: The core.
        pool: The candidates, labelled, at the weights that they have in the fit.
        order: As for `Extension`, and so are the others.
        ridge: lambda, or None for the optimum of the core's LOO loss with the pool in.
        robust: Whether the calibrated cross-entropy is differentiated.

    Raises:
        SolveError: The problem has no answer.
    """

    def __init__(
        self, core: RidgeTask, pool: RidgeTask, order: Tensor, *, ridge: float | None, robust: bool
    ) -> None:
        self._core, self._pool, self._ridge, self._robust = core, pool, ridge, robust
        self._rows = calibration_rows(order, core.validation_mask, core.n_classes)
        self._weights = pool.weights

    @property
    def state(self) -> State:
        """The core, left out in turn, with what is left of the pool."""
        task, fit, _ = self._fitted()
        found = leave_one_out(task, fit, SquaredLoss())
        share = task.validation_mask / task.validation_mask.sum()
        wrong = (found.predicted != task.labels).double()
        return State(fit.ridge, float(share @ found.loss), float(share @ wrong))

    def candidates(self) -> Candidates:
        """The derivative of every pool sample at its weight, each predicted without itself."""
        task, fit, choice_fit = self._fitted()
        n = len(self._core)
        loss: Loss = self._calibrated(task, choice_fit) if self._robust else SquaredLoss()
        left_out = loo_predictions(task, fit, torch.arange(n, len(task)))
        probabilities = self._calibrated(task, fit).probabilities(left_out)
        likelihood = probabilities.gather(1, self._pool.labels[:, None])[:, 0]
        trust, noise = trusted(likelihood, task.n_classes)
        best = probabilities.max(dim=1)
        derivative = loo_derivative(task, choice_fit, loss).derivative[n:]
        return Candidates(derivative, trust, best.indices, best.values, noise)

    def choose(self, candidates: Candidates, eligible: Tensor, size: int) -> Tensor:
        """Who stays: rows of the pool (at most `size`), all of negative derivative, the best first."""
        value = torch.where(eligible, candidates.derivative, torch.inf)
        order = torch.argsort(value, stable=True)[:size]
        return order[value[order] < 0]

    def add(self, chosen: Tensor) -> None:
        """Drop all others."""
        self._weights = torch.zeros_like(self._weights).index_copy(0, chosen, self._pool.weights[chosen])

    def _calibrated(self, task: RidgeTask, fit: RidgeFit) -> RobustCrossEntropy:
        labels, mask = self._core.labels[self._rows], self._core.validation_mask[self._rows]
        return calibrate(loo_predictions(task, fit, self._rows), labels, mask, bias=False, noise=False)

    def _fitted(self) -> tuple[RidgeTask, RidgeFit, RidgeFit]:
        task = merged(self._core, self._pool, self._weights)
        spectrum = decompose(task)
        if self._ridge is not None:
            fit = spectrum.fit(self._ridge)
            return task, fit, fit
        ridge = ridge_path(task, spectrum).ridge
        return task, spectrum.fit(ridge), spectrum.fit(CHOICE_FACTOR * ridge)
