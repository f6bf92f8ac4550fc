"""What is to be improved by other sample weights, and its derivative at any weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.fit.moments import moments
from divacli.ridge.fit.passes import look
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.calibration import RobustCrossEntropy, calibrate, calibration_rows
from divacli.ridge.leave_out.derivative import ValidationResult, loo_derivative, validation_derivative
from divacli.ridge.leave_out.leave_one_out import LooResult, loo_predictions
from divacli.ridge.leave_out.losses import Loss, SquaredLoss


@dataclass(frozen=True)
class Problem:
    """What is to be improved by other sample weights.

    Attributes:
        task: The samples at their present weights, with the validation mask of the leave-one-out loss.
        ridge: lambda.
        robust: Whether the loss is the calibrated, noise-robust cross-entropy; else the squared loss.
        bias: Whether the calibration of the loss that is differentiated has class biases.
        shared: (n,) int64 number of the weight that a sample shares with others, or None for one each.
        validation: A separate validation set in place of the leave-one-out loss.
        order: (n,) row numbers (of the validation set where there is one) in the order that random draws
            follow.
    """

    task: RidgeTask
    ridge: float
    order: Tensor
    robust: bool = True
    bias: bool = True
    shared: Tensor | None = None
    validation: RidgeTask | None = None

    @property
    def judged(self) -> RidgeTask:
        """The samples whose loss counts."""
        return self.task if self.validation is None else self.validation


@dataclass(frozen=True)
class Derivative:
    """The derivative of a problem's loss at some weights.

    Attributes:
        derivative: (n,) float64 `dL/d alpha`, positive = harmful; the mean over all samples that share a
            weight, which is the projection of the derivative onto such weights.
        loss: The loss that was differentiated, calibrated at these weights.
        mean_loss: Its mean over the validation samples, weighted by the mask.
        error: Share of validation samples predicted as another class than their label, likewise.
    """

    derivative: Tensor
    loss: Loss
    mean_loss: float
    error: float


def differentiate(problem: Problem, weights: Tensor, fit: RidgeFit | None = None) -> Derivative:
    """The derivative at some weights, its loss recalibrated there.

    Args:
        problem: The problem.
        weights: (n,) float64.
        fit: The ridge solution at these weights, where it is at hand.

    Raises:
        SolveError: No sample has a positive weight, or a leverage is one.
    """
    task = replace(problem.task, weights=weights)
    fit = moments(task).fit(problem.ridge) if fit is None else fit
    loss: Loss = _calibrated(problem, task, fit) if problem.robust else SquaredLoss()
    found: LooResult | ValidationResult
    if problem.validation is None:
        result = loo_derivative(task, fit, loss)
        derivative, found = result.derivative, result.loo
    else:
        derivative, found = validation_derivative(task, problem.validation, fit, loss)
    if problem.shared is not None:
        counts = torch.bincount(problem.shared)
        sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, problem.shared, derivative)
        derivative = (sums / counts.clamp_min(1))[problem.shared]
    share = problem.judged.validation_mask / problem.judged.validation_mask.sum()
    wrong = (found.predicted != problem.judged.labels).double()
    return Derivative(derivative, loss, float(share @ found.loss), float(share @ wrong))


def predictions(task: RidgeTask, fit: RidgeFit, rows: Tensor) -> Tensor:
    """Predictions (m, k) float64 on the CPU for chosen samples, which had better not be in the fit.

    Args:
        task: The samples.
        fit: A ridge solution in the same coordinates.
        rows: (m,) int64.
    """
    fit = fit.to(task.dtype)
    found = torch.zeros(len(rows), task.n_classes, dtype=torch.float64)

    def visit(batch: Batch) -> None:
        outputs = batch.labels - batch.targets + fit.project(batch.features) @ fit.coef
        found[batch.rows] = outputs.double().cpu()

    look(task.select(rows), visit)
    return world().merged(found)


def _calibrated(problem: Problem, task: RidgeTask, fit: RidgeFit) -> RobustCrossEntropy:
    judged = problem.judged
    rows = calibration_rows(problem.order, judged.validation_mask, judged.n_classes)
    left_out = problem.validation is None
    found = loo_predictions(task, fit, rows) if left_out else predictions(judged, fit, rows)
    return calibrate(found, judged.labels[rows], judged.validation_mask[rows], bias=problem.bias)
