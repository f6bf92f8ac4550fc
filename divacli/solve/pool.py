"""Core, pool and validation set -> one problem that a choice is made from."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch

from divacli.errors import ModelError
from divacli.features import Samples
from divacli.features.samples import order_by_path, require_same_features
from divacli.ridge import PoolProblem, RidgeTask, Span, merged
from divacli.solve.ridge_problem import SolveOptions, balanced, carried_offset, pose, pose_validation


def pose_choice(
    core: Samples,
    pool: Samples,
    options: SolveOptions,
    min_trust: float,
    validation: Samples | None,
    classes: list[str],
) -> PoolProblem:
    """Core, pool and validation set in one problem, in the kernel form where they are few.

    Args:
        core: The core.
        pool: The pool.
        options: How the problem is posed.
        min_trust: Samples whose label is right with a smaller probability are not chosen.
        validation: A set that the choice is to serve in place of what core and pool show.
        classes: Label of each class number.

    Raises:
        DataError: Labels or features that do not fit.
    """
    task = pose(core, options, classes)
    posed_pool = pose_pool(task, pool, classes)
    held_out, held_out_order = None, torch.zeros(0, dtype=torch.int64)
    if validation is not None:
        held_out = pose_validation(task, core, validation, options, classes)
        held_out_order = order_by_path(validation)
    if len(task) + len(posed_pool) < task.n_features:
        # The dual form: no fit reaches beyond what core and pool span.
        span = Span(merged(task, posed_pool, posed_pool.weights))
        task, posed_pool = span.project(task), span.project(posed_pool)
        held_out = None if held_out is None else span.project(held_out)
    return PoolProblem(
        task,
        posed_pool,
        order_by_path(core),
        order_by_path(pool),
        torch.ones(len(pool), dtype=torch.bool),
        validation=held_out,
        validation_order=held_out_order,
        ridge=options.ridge,
        robust=options.loss == "robust-cross-entropy",
        labelled=pool.manifest.labelled,
        min_trust=min_trust,
        seed=options.seed,
    )


def with_possible(problem: PoolProblem, possible: torch.Tensor, options: SolveOptions) -> PoolProblem:
    """The problem with those who may be chosen, (m,) bool, and each class counting alike where it is to."""
    balance = None
    if options.balanced and problem.labelled:
        balance = balanced(possible.double(), problem.pool.labels)
    return replace(problem, possible=possible, balance=balance)


def check_pool(core: Samples, pool: Samples, options: SolveOptions) -> None:
    """Refuse a pool that cannot stand in one problem with the core.

    Raises:
        StoreError: Features of another network.
        DataError: Another number of features.
        ModelError: `around_head` with classes that the network lacks.
    """
    require_same_features(core, pool)
    if options.around_head and set(pool.manifest.classes) - set(core.manifest.classes):
        raise ModelError(
            "--around-head with a pool whose labels the core lacks",
            expected="the classes of the network's head",
            hint="leave --around-head out",
        )


def shared_classes(core: Samples, pool: Samples) -> list[str]:
    """The labels of both, sorted as those of one set are."""
    both = pd.concat([core.manifest.table[["label"]], pool.manifest.table[["label"]]])
    return replace(core.manifest, table=both).classes


def pose_pool(task: RidgeTask, pool: Samples, classes: list[str]) -> RidgeTask:
    """The candidates in the coordinates of the core's task, each at the weight it would enter with."""
    n = len(pool)
    labels = torch.zeros(n, dtype=torch.int64)
    if pool.manifest.labelled:
        labels = torch.from_numpy(pool.manifest.class_numbers(classes))
    return replace(
        task,
        features=pool.features,
        labels=labels,
        weights=torch.from_numpy(pool.manifest.table["weight"].to_numpy(float, copy=True)),
        validation_mask=torch.zeros(n, dtype=torch.float64),
        offset=carried_offset(task, pool),
        groups=None,
    )
