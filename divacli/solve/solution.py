"""From samples to a solved ridge problem: ridge chosen, loss calibrated, one factorisation for all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from divacli.errors import SolveError
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.progress import Progress, silent
from divacli.ridge import (
    CrossEntropyLoss,
    Loss,
    RidgePath,
    RidgeTask,
    Span,
    Spectrum,
    SquaredLoss,
    decompose,
    fit_inverse_temperature,
    in_eigenbasis,
    loo_predictions,
    ridge_path,
)
from divacli.solve.ridge_problem import SolveOptions, pose, pose_validation

_CALIBRATION_VALUES = 4_000_000
"""LOO predictions (rows x classes) that the temperature is fitted on, evenly spaced."""


@dataclass(frozen=True)
class Solution:
    """A solved problem.

    Attributes:
        task: As posed, (n, d).
        validation: A separate validation set as posed, or None for the leave-one-out loss.
        solved: `task`, or its kernel form where n < d, in the coordinates of its eigenbasis.
        solved_validation: The validation set in the same coordinates.
        spectrum: Decomposition of `solved`.
        classes: Label of each class number.
        loss: The validation loss, calibrated.
        ridge: lambda of losses, predictions and derivatives: the LOO optimum, unless it was given.
        path: The path that `ridge` was chosen on; None where it was given.
    """

    task: RidgeTask
    validation: RidgeTask | None
    solved: RidgeTask
    solved_validation: RidgeTask | None
    spectrum: Spectrum
    classes: list[str]
    loss: Loss
    ridge: float
    path: RidgePath | None


def solve(
    samples: Samples,
    options: SolveOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> Solution:
    """Pose the ridge problem of some samples, choose its ridge and factorise it.

    Args:
        samples: Training samples.
        options: How.
        validation: A separate validation set, whose loss is differentiated in place of the LOO loss.
        progress: Told of every step.

    Raises:
        DataError: The validation set has labels or features that do not fit the samples.
        ModelError: `around_head` without a head of these classes.
        SolveError: The problem has no answer.
    """
    with progress("factorising the features", 0):
        task = pose(samples, options)
        validation_task = None if validation is None else pose_validation(task, samples, validation, options)
        solved, solved_validation = task, validation_task
        if len(task) < task.n_features:
            span = Span(task)
            solved = span.task()
            solved_validation = None if validation_task is None else span.project(validation_task)
        spectrum, solved, [solved_validation] = in_eigenbasis(solved, decompose(solved), solved_validation)
    path = None
    with progress("choosing the ridge", 0):
        if options.ridge is None:
            path = ridge_path(solved, spectrum, order=order_by_path(samples))
            ridge = path.ridge
        else:
            ridge = options.ridge
        loss = _calibrated(options.loss, solved, spectrum, ridge, order_by_path(samples))
    return Solution(
        task,
        validation_task,
        solved,
        solved_validation,
        spectrum,
        samples.manifest.classes,
        loss,
        ridge,
        path,
    )


def _calibrated(name: str, task: RidgeTask, spectrum: Spectrum, ridge: float, order: torch.Tensor) -> Loss:
    if name == "squared":
        return SquaredLoss()
    if name != "cross-entropy":
        raise SolveError(f"loss {name!r}", expected="squared or cross-entropy")
    rows = order[:: max(1, -(-len(task) * task.n_classes // _CALIBRATION_VALUES))].sort().values
    predictions = loo_predictions(task, spectrum.fit(ridge), rows)
    targets = torch.nn.functional.one_hot(task.labels[rows], task.n_classes).double()
    # As if one sample more had been seen, with a label drawn at random: predictions without a mistake would
    # otherwise ask for certainty, where the loss is flat and every derivative zero.
    share = 1 / (1 + len(rows))
    targets = (1 - share) * targets + share / task.n_classes
    return CrossEntropyLoss(fit_inverse_temperature(predictions, targets, task.validation_mask[rows]))
