"""All that a table of scores says of every sample, in two passes over the features.

The first one leaves every sample out at the ridge of the smallest loss, which is what labels are judged by,
and sums over them at the ranking ridge; the second one reads off derivatives and their standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.derivative import LooSums, ValidationSums, training, validation_sums
from divacli.ridge.diagnosis import Diagnosis, Diagnostician
from divacli.ridge.leave_one_out import LooResult, batch_residuals
from divacli.ridge.losses import Loss
from divacli.ridge.noise import NoiseModel
from divacli.ridge.scaling import require_finite
from divacli.ridge.spectrum import RidgeFit
from divacli.ridge.task import Batch, RidgeTask
from divacli.ridge.uncertainty import spread
from divacli.ridge.walk import Sums, look, walk


@dataclass(frozen=True)
class Scores:
    """What is said of every sample, on the CPU.

    Attributes:
        derivative: (n,) float64 `dL/d alpha` at the ranking ridge, positive = harmful.
        errors: (n,) float64 its standard error.
        loo: Leaving every sample out, at the ridge of losses.
        diagnosis: What that says of its label.
    """

    derivative: Tensor
    errors: Tensor
    loo: LooResult
    diagnosis: Diagnosis


def scores(
    task: RidgeTask,
    fit: RidgeFit,
    ranking_fit: RidgeFit,
    loss: Loss,
    model: NoiseModel,
    order: Tensor,
    validation: RidgeTask | None = None,
) -> Scores:
    """As `diagnose`, `loo_derivative` or `validation_derivative`, and `derivative_errors`: O(n d^2).

    Args:
        task: The samples.
        fit: Their ridge solution for losses and predictions.
        ranking_fit: That for derivatives.
        loss: The validation loss.
        model: How labels come about.
        order: As for `derivative_errors`.
        validation: A separate validation set, whose loss is differentiated in place of the LOO loss.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    fit, ranking_fit = fit.to(task.dtype), ranking_fit.to(task.dtype)
    loo, own = LooResult.empty(len(task)), torch.zeros(len(task), dtype=torch.float64)
    judge = Diagnostician(task, fit, model)
    n_judged = len(judge.zeros())

    def leave_out(batch: Batch, sums: Sums) -> None:
        now = batch_residuals(fit, batch)
        loo.record(batch, now, loss)
        judge.enter(batch, now, sums[:n_judged])
        if validation is None:
            influence = batch_residuals(ranking_fit, batch).influence(batch, loss)
            influence.add_to(*sums[n_judged:])
            own[batch.rows] = influence.own.double().cpu()

    def zeros() -> Sums:
        return [*judge.zeros(), *(LooSums.zeros(ranking_fit) if validation is None else ())]

    sums = walk(task, zeros, leave_out, whole_groups=True)
    found: LooSums | ValidationSums
    if validation is None:
        found = LooSums.of(sums[n_judged:])
    else:
        found, _ = validation_sums(validation, ranking_fit, loss)
    found = found.to(task.dtype)
    drawn = spread(task, ranking_fit, loss, order, validation)
    derivative, errors = torch.zeros(2, len(task), dtype=torch.float64)

    def read_off(batch: Batch) -> None:
        whitened, residuals = training(ranking_fit, batch)
        derivative[batch.rows] = found.through_fit(whitened, residuals).double().cpu()
        errors[batch.rows] = drawn.errors(batch, whitened, residuals).double().cpu()

    look(task, read_off)
    for vector in (own, derivative, errors):
        world().merged(vector)
    derivative = require_finite(own + derivative, "derivatives")
    return Scores(derivative, errors, loo.merged(), judge.diagnosis(sums[:n_judged]))
