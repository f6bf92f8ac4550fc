"""Choose from a pool the samples that lower the core's validation loss, and say what each choice predicts."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.choice import (
    barred_samples,
    described,
    extended_samples,
    remaining_samples,
    selected_samples,
)
from divacli.curate.provenance import left_out, provenance
from divacli.curate.solution import (
    SolveOptions,
    offset_of,
    order_by_path,
    pose,
    pose_validation,
    require_same_features,
)
from divacli.embed import Samples
from divacli.embed.progress import Progress, silent
from divacli.errors import DataError, ModelError
from divacli.manifest import Manifest
from divacli.ridge import Candidates, Extension, Reduction, RidgeTask, Span, merged

MOST_AT_ONCE = 256
"""Samples chosen between two refits, at the most, where the user does not say."""


@dataclass(frozen=True)
class ExtendOptions:
    """What may be chosen, and how much.

    Attributes:
        budget: Samples to choose at the most; None: until none is left that lowers the loss.
        refit_every: Samples chosen between two exact refits. None: a twentieth of the
            budget, `MOST_AT_ONCE` at the most.
        min_trust: Samples whose label is right with a smaller probability are not chosen.
        start_full: Start with the whole pool in and drop what harms, in one step; for a core with a single
            sample of some class. A trust in labels is not asked for: it would rest on that one sample.
    """

    budget: int | None = None
    refit_every: int | None = None
    min_trust: float = 0.5
    start_full: bool = False


@dataclass(frozen=True)
class ExtendResult:
    """What was chosen.

    Attributes:
        selected: Chosen pool samples in the order of choice: `batch` (from 1), path, label, weight,
            `pool_derivative` (`expected_derivative` for an unlabelled pool) at the time of choice,
            `label_probability`, `predicted_label`, then the pool's other columns. For an unlabelled pool
            `label` is the predicted one, and `label_source` says "predicted".
        extended: The core followed by what was chosen: samples to train on. Paths are the core's.
        remaining: Pool samples that were not chosen, in the pool's order, with their last derivative and the
            `reason`.
        history: One row for every state from the core alone (with `start_full`, the core and all of the pool)
            on: batch, n_selected, ridge, loss (mean squared leave-one-out or validation loss), error.
        core: The core's samples.
        pool: The pool's samples.
        first: What the core alone said of every pool sample, in the pool's order.
        summary: For JSON.
    """

    selected: pd.DataFrame
    extended: pd.DataFrame
    remaining: pd.DataFrame
    history: pd.DataFrame
    core: Samples
    pool: Samples
    first: Candidates
    summary: dict[str, Any]


def extend(
    core: Samples,
    pool: Samples,
    options: SolveOptions,
    how: ExtendOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> ExtendResult:
    """Choose pool samples greedily, in batches with an exact refit after each.

    The core is trained on at its weights and is what the loss is over, left out in turn; the pool has weight
    zero and does not count. With a validation set, its loss is what the choice lowers.

    Args:
        core: Samples to extend.
        pool: Candidates, labelled or not.
        options: How the problem is posed.
        how: Budget and batches.
        validation: A separate validation set. Its labels are among those of core and pool.
        progress: Told of every sample that is chosen.

    Raises:
        DataError: Features that do not fit, or nothing in the pool that could be chosen.
        SolveError: The core's problem has no answer.
    """
    start = time.monotonic()
    check_pool(core, pool, options)
    everybody = shared_classes(core, pool)
    labelled = pool.manifest.labelled
    judged = core if validation is None else validation
    walk: Extension | Reduction
    order, robust = order_by_path(judged), options.loss == "cross-entropy"
    with progress("fitting the core", 0):
        task = pose(core, options, everybody)
        posed_pool = pose_pool(task, pool, everybody, options)
        held_out = None
        if validation is not None:
            held_out = pose_validation(task, core, validation, options, everybody)
        if len(task) + len(posed_pool) < task.n_features:
            # The dual form: no fit reaches beyond what core and pool span.
            span = Span(merged(task, posed_pool, posed_pool.weights))
            task, posed_pool = span.project(task), span.project(posed_pool)
            held_out = None if held_out is None else span.project(held_out)
        if how.start_full:
            walk = Reduction(task, posed_pool, order, ridge=options.ridge, robust=robust)
        else:
            walk = Extension(
                task,
                posed_pool,
                order,
                ridge=options.ridge,
                robust=robust,
                validation=held_out,
                labelled=labelled,
            )
    with progress("judging the pool", 0):
        reasons = barred_samples(core, pool, judged, options)
        candidates = first = walk.candidates()
    possible = torch.from_numpy((reasons == "").to_numpy(copy=True))
    n_possible = int(possible.sum())
    budget = n_possible if how.budget is None else min(how.budget, n_possible)
    at_once = how.refit_every or max(1, min(MOST_AT_ONCE, -(-budget // 20)))
    min_trust = how.min_trust
    if how.start_full:
        at_once, min_trust = budget, 0.0
    free = possible.clone()
    state = walk.state
    history = [{"batch": 0, "n_selected": len(pool) if how.start_full else 0, **vars(state)}]
    chosen: list[np.ndarray] = []
    batches: list[pd.DataFrame] = []
    n_chosen = 0
    with progress("choosing", budget) as advance:
        while n_chosen < budget:
            eligible = free & (candidates.trust >= min_trust)
            now = walk.choose(candidates, eligible, min(at_once, budget - n_chosen))
            if not len(now):
                break
            walk.add(now)
            free[now] = False
            chosen.append(now.numpy())
            batches.append(described(candidates, now, everybody, len(chosen), labelled))
            n_chosen += len(now)
            state = walk.state
            history.append({"batch": len(chosen), "n_selected": n_chosen, **vars(state)})
            advance(len(now))
            if how.start_full:
                break
            candidates = walk.candidates()
    rows = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    stopped = "the budget was spent" if n_chosen == budget < n_possible else "no other one lowers the loss"
    selected = selected_samples(pool, rows, batches, first, everybody)
    remaining = remaining_samples(pool, reasons, free, candidates, everybody, min_trust, stopped)
    table = pd.DataFrame(history)
    about = provenance(core, options, pool, validation)
    summary = {
        "n_core": len(core),
        "n_pool": len(pool),
        "n_selected": n_chosen,
        "budget": how.budget,
        "refit_every": at_once,
        "stopped": stopped,
        "labelled": labelled,
        "judged_by": "validation set" if validation is not None else f"{left_out(about)} loss of the core",
        "min_trust": min_trust,
        # A label drawn from all classes alike is right by chance once in as many times as there are classes.
        "pool_noise": first.noise * (1 - 1 / len(everybody)) if labelled else None,
        "loss": {"before": history[0]["loss"], "after": history[-1]["loss"]},
        "error": {"before": history[0]["error"], "after": history[-1]["error"]},
        "n_failed": len(core.failed) + len(pool.failed),
        "seconds": {
            "embed": round(core.seconds + pool.seconds, 3),
            "solve": round(time.monotonic() - start, 3),
        },
        **about,
    }
    extended = extended_samples(core, pool, selected)
    return ExtendResult(selected, extended, remaining, table, core, pool, first, summary)


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


def check_one_table(core: Manifest, pool: Manifest) -> None:
    """Refuse images beside embeddings: the table of both could not be read back.

    Raises:
        DataError: One of the two brings its features.
    """
    brings = ["feature_source" in manifest.table for manifest in (core, pool)]
    if brings[0] != brings[1]:
        names = [core.name, pool.name]
        raise DataError(
            f"{names[brings.index(True)]} brings its features and {names[brings.index(False)]} does not",
            expected="both with features or both as images, to stand in one table",
            hint="make a store of the images with diva embed, and give that",
        )


def shared_classes(core: Samples, pool: Samples) -> list[str]:
    """The labels of both, sorted as those of one set are."""
    both = pd.concat([core.manifest.table[["label"]], pool.manifest.table[["label"]]])
    return replace(core.manifest, table=both).classes


def pose_pool(task: RidgeTask, pool: Samples, classes: list[str], options: SolveOptions) -> RidgeTask:
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
        offset=offset_of(pool, task.n_classes, options),
        groups=None,
    )
