"""How far each label of a pool is to be trusted, with a core whose labels are right as the anchor.

A core of a few samples a class predicts a pool badly, and from its predictions alone few wrong labels are
found. Core and pool together predict well. So the pool enters the fit, every sample at the probability that
its label is right, and the label-noise model (`ridge.labels.noise`) is fitted to leave-one-out predictions
of that fit. First the core alone says what the probabilities are; each round says it anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.ridge.fit.moments import decompose
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.labels.noise import fit_noise, noise_rows
from divacli.ridge.leave_out.calibration import calibrate, calibration_rows
from divacli.ridge.leave_out.leave_one_out import loo_predictions
from divacli.ridge.leave_out.ridge_path import ridge_path
from divacli.ridge.pool.extension import trusted
from divacli.ridge.pool.reduction import merged
from divacli.ridge.weights.problem import predictions

ROUNDS = 2
"""Fits on core and pool. The second finds labels that are wrong in pairs, which the first believes."""

STRENGTHS = (math.inf, 30.0)
"""Priors of the noise model that are tried: one rate for all mistakes, and mistakes in pairs of classes."""


@dataclass(frozen=True)
class PoolTrust:
    """What core and pool together say of the pool's labels.

    Attributes:
        probability: (m,) float64 that the given label is the right one.
        noise: Share of wrong labels in the pool, as estimated.
        predicted: (m,) int64 most probable class, the given label not being looked at.
        confidence: (m,) float64 its probability.
        outputs: (n + m, k) float64 leave-one-out predictions of core and pool by the fit on both.
        ridge: Of that fit.
    """

    probability: Tensor
    noise: float
    predicted: Tensor
    confidence: Tensor
    outputs: Tensor
    ridge: float = 1.0


def fit_trust(
    core: RidgeTask,
    pool: RidgeTask,
    order: Tensor,
    pool_order: Tensor,
    *,
    validation: RidgeTask | None = None,
    usable: Tensor | None = None,
    ridge: float | None = None,
    seed: int = 0,
) -> PoolTrust:
    """Estimate which labels of a pool are right.

    Args:
        core: Samples whose labels are right.
        pool: (m) samples whose labels may be wrong, each at the weight that it would enter with.
        order: (n,) row numbers of the core in an order that does not depend on how they are stored.
        pool_order: (m,) likewise of the pool.
        validation: More samples whose labels are right.
        usable: (m,) bool, pool samples that the estimate may rest on; by default all.
        ridge: lambda, or None for the leave-one-out optimum of every fit.
        seed: Of the halves that choose between the priors.

    Raises:
        SolveError: The core's problem has no answer.
    """
    anchor = core
    if validation is not None:
        anchor = merged(core, validation, validation.validation_mask)
        order = torch.cat([order, len(core) + torch.arange(len(validation))])
    n, m, k = len(anchor), len(pool), core.n_classes
    usable = torch.ones(m, dtype=torch.bool) if usable is None else usable
    fit = _fit(anchor, ridge)
    rows = calibration_rows(order, anchor.validation_mask, k)
    left_out = loo_predictions(anchor, fit, rows)
    calibration = calibrate(
        left_out, anchor.labels[rows], anchor.validation_mask[rows], bias=False, noise=False
    )
    own = pool.labels[:, None]
    logs = calibration.probabilities(predictions(pool, fit, torch.arange(m))).log()
    likelihood = logs.exp().gather(1, own)[:, 0]
    probability = torch.ones(m, dtype=torch.float64)
    probability[usable] = trusted(likelihood[usable], k)[0]
    drawn = pool_order[usable[pool_order]]
    outputs, at = torch.zeros(n + m, k, dtype=torch.float64), 1.0
    for _ in range(ROUNDS):
        outputs, at = leave_out(anchor, pool, probability * usable, ridge)
        own_outputs = outputs[n:]
        if k < 2:
            break
        few = drawn[noise_rows(torch.arange(len(drawn)), k)]
        model = fit_noise(own_outputs[few], pool.labels[few], strengths=STRENGTHS, seed=seed).model
        logs = model.calibration.logs(own_outputs)
        probability = model.posterior_of(logs, pool.labels).gather(1, own)[:, 0]
    best = logs.exp().max(dim=1)
    noise = float(1 - probability[usable].mean()) if bool(usable.any()) else 0.0
    outputs = torch.cat([outputs[: len(core)], outputs[n:]])
    return PoolTrust(probability, noise, best.indices, best.values, outputs, at)


def leave_out(
    core: RidgeTask, pool: RidgeTask, probability: Tensor, ridge: float | None
) -> tuple[Tensor, float]:
    """Leave-one-out predictions (n + m, k) float64 by a fit on both, and its ridge.

    Args:
        core: The core.
        pool: The pool.
        probability: (m,) what the weights of the pool are multiplied by; the ridge is the optimum of the
            leave-one-out loss in which the core counts as it does, and the pool as much as this.
        ridge: lambda, or None for that optimum.
    """
    both = merged(core, pool, pool.weights * probability)
    both = replace(both, validation_mask=torch.cat([core.validation_mask, probability]))
    fit = _fit(both, ridge)
    return loo_predictions(both, fit, torch.arange(len(both))), fit.ridge


def _fit(task: RidgeTask, ridge: float | None) -> RidgeFit:
    spectrum = decompose(task)
    if ridge is None:
        ridge = ridge_path(task, spectrum).ridge
    return spectrum.fit(ridge)
