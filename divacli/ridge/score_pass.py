"""All that a table of scores says of every sample, at one ridge, in two passes over the features.

The first pass leaves every sample out: losses, predictions, judgements of labels, and the sums that make up
the derivative of those losses. The second pass reads off derivatives and their standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.fit.passes import Sums, look, walk
from divacli.ridge.fit.scaling import require_finite
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.labels.diagnosis import Diagnosis, Diagnostician
from divacli.ridge.labels.noise_fit import NoiseModel
from divacli.ridge.leave_out.derivative import (
    LooSums,
    ValidationResult,
    ValidationSums,
    training,
    validation_sums,
)
from divacli.ridge.leave_out.leave_one_out import LooResult, batch_residuals
from divacli.ridge.leave_out.losses import Loss
from divacli.ridge.leave_out.uncertainty import draws


@dataclass(frozen=True)
class Scores:
    """What is said of every sample, on the CPU.

    Attributes:
        derivative: (n,) float64 `dL/d alpha`, positive = harmful.
        errors: (n,) float64 its standard error.
        loo: Leaving every sample out. Without a validation set `L` is the sum of these losses times the mask.
        diagnosis: What that says of its label.
        validation: The validation set under the same fit, whose loss is `L`; None without one.
    """

    derivative: Tensor
    errors: Tensor
    loo: LooResult
    diagnosis: Diagnosis
    validation: ValidationResult | None


def scores(
    task: RidgeTask,
    fit: RidgeFit,
    loss: Loss,
    model: NoiseModel,
    order: Tensor,
    validation: RidgeTask | None = None,
) -> Scores:
    """As `diagnose`, `loo_derivative` or `validation_derivative`, and `derivative_errors`: O(n d^2).

    Args:
        task: The samples.
        fit: Their ridge solution.
        loss: The validation loss.
        model: How labels come about.
        order: As for `derivative_errors`.
        validation: A separate validation set, whose loss is differentiated in place of the LOO loss.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    fit = fit.to(task.dtype)
    loo, own = LooResult.empty(len(task)), torch.zeros(len(task), dtype=torch.float64)
    judge = Diagnostician(task, fit, model)
    n_judged = len(judge.zeros())

    def leave_out(batch: Batch, sums: Sums) -> None:
        now = batch_residuals(fit, batch)
        loo.record(batch, now, loss)
        judge.enter(batch, now, sums[:n_judged])
        if validation is None:
            influence = now.influence(batch, loss)
            influence.add_to(*sums[n_judged:])
            own[batch.rows] = influence.own.double().cpu()

    def zeros() -> Sums:
        return [*judge.zeros(), *(LooSums.zeros(fit) if validation is None else ())]

    sums = walk(task, zeros, leave_out, whole_groups=True)
    of_loss: LooSums | ValidationSums
    if validation is None:
        of_loss, validated = LooSums.of(sums[n_judged:]), None
    else:
        of_loss, validated = validation_sums(validation, fit, loss)
    of_loss = of_loss.to(task.dtype)
    loo_of_loss = of_loss if isinstance(of_loss, LooSums) else None
    drawn = draws(task, fit, loss, order, loo_of_loss, validation)
    derivative, errors = torch.zeros(2, len(task), dtype=torch.float64)

    def read_off(batch: Batch) -> None:
        whitened, residuals = training(fit, batch)
        derivative[batch.rows] = of_loss.through_fit(whitened, residuals).double().cpu()
        errors[batch.rows] = drawn.errors(batch, whitened, residuals).double().cpu()

    look(task, read_off)
    for vector in (own, derivative, errors):
        world().merged(vector)
    derivative = require_finite(own + derivative, "derivatives")
    return Scores(derivative, errors, loo.merged(), judge.diagnosis(sums[:n_judged]), validated)
