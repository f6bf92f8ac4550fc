"""Samples -> the problem whose weights are improved, its ridge the best one for the first weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from divacli.errors import DataError
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.ridge import Problem, RidgeTask, Span, decompose, ridge_path
from divacli.solve.groups import group_numbers
from divacli.solve.ridge_problem import SolveOptions, balanced, pose, pose_validation

Sharing = Literal["sample", "class", "group"]
"""Whether every sample has a weight of its own or shares one with its class or group."""


def pose_problem(
    samples: Samples, options: SolveOptions, validation: Samples | None = None, per: Sharing = "sample"
) -> Problem:
    """What `divacli.ridge.weights` improves, its ridge at the leave-one-out optimum of the first weights.

    Raises:
        DataError: No groups to share weights, or a validation set that does not fit.
    """
    task = pose(samples, options)
    held_out = None if validation is None else pose_validation(task, samples, validation, options)
    if options.balanced:
        task = replace(task, weights=balanced(task.weights, task.labels))
    order = order_by_path(samples if validation is None else validation)
    return problem_of(task, options, order, _shared(samples, task, options, per), held_out)


def problem_of(
    task: RidgeTask,
    options: SolveOptions,
    order: torch.Tensor,
    shared: torch.Tensor | None = None,
    validation: RidgeTask | None = None,
) -> Problem:
    """A posed task as a problem of weights, in the span of its samples where these are few.

    Args:
        task: The samples at the weights to begin with.
        options: Its ridge (where there is none, the leave-one-out optimum of the task), loss and balance.
        order: As in `Problem`.
        shared: As in `Problem`.
        validation: As in `Problem`.
    """
    if len(task) < task.n_features:
        span = Span(task)
        task, validation = span.task(), None if validation is None else span.project(validation)
    return Problem(
        task,
        leave_one_out_ridge(task, options, order if validation is None else None),
        order,
        robust=options.loss == "robust-cross-entropy",
        # Biases would take over what balancing is to do with weights.
        bias=not options.balanced,
        shared=shared,
        validation=validation,
    )


def leave_one_out_ridge(task: RidgeTask, options: SolveOptions, order: torch.Tensor | None = None) -> float:
    """The ridge that was given, or the one with the smallest leave-one-out loss.

    Args:
        task: The samples.
        options: What was given.
        order: (n,) row numbers in the order that samples are drawn in; by default the rows' own.
    """
    if options.ridge is not None:
        return options.ridge
    return ridge_path(task, decompose(task), order=order).ridge


def _shared(samples: Samples, task: RidgeTask, options: SolveOptions, per: Sharing) -> torch.Tensor | None:
    if per == "sample":
        return None
    if per == "class":
        return task.labels
    groups = group_numbers(samples.manifest, options.group)
    if groups is None:
        raise DataError(
            f"{samples.manifest.name} has no groups that could share a weight",
            expected="a column group, or another one named with --group, with repeated values",
            hint="name the column with --group",
        )
    return torch.from_numpy(np.unique(groups.numpy(), return_inverse=True)[1])
