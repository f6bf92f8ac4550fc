"""Choose from a pool what the core lacks, and say what each choice predicts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.outlook import Outlook, informed, preferred
from divacli.curate.pool_tables import (
    barred_samples,
    described,
    extended_samples,
    remaining_samples,
    selected_samples,
)
from divacli.embed import Samples
from divacli.embed.samples import order_by_path, require_same_features
from divacli.errors import DataError, ModelError, SolveError, listed
from divacli.manifest import relocate
from divacli.progress import Progress, silent
from divacli.results.result import Target
from divacli.ridge import (
    POOL_FOLDS,
    RULES,
    TRUSTED,
    Candidates,
    PoolProblem,
    PoolTrust,
    PoolWalk,
    Reduction,
    RidgeTask,
    Span,
    batch_size,
    fit_trust,
    forecast_rules,
    merged,
    started,
)
from divacli.ridge.pool.choice import BALANCED, CORESET, DERIVATIVE, RANDOM
from divacli.solve.loader import Given, Loader
from divacli.solve.pose import SolveOptions, balanced, offset_of, pose, pose_validation
from divacli.solve.provenance import left_out, provenance

TABLES = ("extended", "selected", "remaining", "history")
"""Tables that are always written, and by diva aggregate too."""

FILES = (*TABLES, "extend.json")
"""What is always written."""

NOTHING_CHOSEN = "nothing was chosen"
"""Why there is no forecast."""


@dataclass(frozen=True)
class ExtendOptions:
    """What may be chosen, and how much.

    Attributes:
        budget: Samples to choose at the most; None: until none is left that lowers the loss.
        refit_every: Samples chosen between two exact refits. None: a twentieth of the
            budget, 256 at the most.
        min_trust: Samples whose label is right with a smaller probability are not chosen.
        by: `coreset`, `balanced`, `derivative` or `random`; None: what the folds say.
        trust_core: Labels are trusted as far as the core's fit alone says, anew after every refit; for a pool
            of another modality, whose fit is not the core's.
        start_full: Start with the whole pool in and drop what harms, in one step; for a core with a single
            sample of some class. A trust in labels is not asked for: it would rest on that one sample.
        forecast: Whether the error on new images is forecast where folds have no rule to choose. It takes
            about as long as the choice.
        share: In place of the budget a share of the pool, in (0, 1]; at least one sample.
    """

    budget: int | None = None
    refit_every: int | None = None
    min_trust: float = 0.5
    by: str | None = None
    trust_core: bool = False
    start_full: bool = False
    forecast: bool = True
    share: float | None = None

    def of_pool(self, n: int) -> ExtendOptions:
        """The same with a budget in place of a share, of a pool of n samples."""
        if self.share is None:
            return self
        return replace(self, budget=max(1, round(self.share * n)), share=None)


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
        outlook: What the choice should do to the error on new images; None where that is not known.
        unknown: Why not.
        summary: For JSON.
    """

    selected: pd.DataFrame
    extended: pd.DataFrame
    remaining: pd.DataFrame
    history: pd.DataFrame
    core: Samples
    pool: Samples
    first: Candidates
    outlook: Outlook | None
    unknown: str
    summary: dict[str, Any]

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        if self.unknown:
            yield f"no forecast was made: {self.unknown}"
        if not self.summary["labelled"]:
            yield (
                f"the labels of the {len(self.selected):,} chosen samples are predictions (label_source): "
                "have them checked before you train on them"
            )

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        self.write_choice(target, "extend.json", self.summary)

    def write_choice(
        self, target: Target, name: str, summary: dict[str, Any], folder: Path | None = None
    ) -> None:
        """Write all tables, and a summary that may tell more than this one.

        Args:
            target: Where.
            name: Of the JSON file.
            summary: What it holds.
            folder: That the tables' paths start from; None: the core's and the pool's own.
        """
        origin, pool_origin = self.core.manifest.folder, self.pool.manifest.folder
        failed = pd.concat([self.core.failed, relocate(self.pool.failed, pool_origin, origin)])
        target.table("failed", failed, origin, part=True)
        target.table("selected", self.selected, folder or pool_origin)
        target.table("remaining", self.remaining, folder or pool_origin, part=True)
        target.records("history", self.history)
        target.json(name, summary)
        predicted = not self.summary["labelled"]
        target.table("extended", self.extended, folder or origin, main=True, part=True, relabelled=predicted)


def extend_data(
    loader: Loader,
    data: Given,
    pool: Given,
    options: SolveOptions,
    how: ExtendOptions,
    validation: Given | None = None,
    *,
    labels_given: bool = True,
) -> ExtendResult:
    """Embed a core and a pool, and choose from it as `extend` does.

    Args:
        loader: Of this run.
        data: DATA of the core.
        pool: DATA of the candidates.
        options: As for `extend`.
        how: As for `extend`.
        validation: DATA whose loss the choice lowers.
        labels_given: Whether the pool's labels, where it has any, are looked at.

    Raises:
        DivaError: The samples cannot be used, or the problem has no answer.
    """
    core, candidates, judged = loader.load_pool(data, pool, validation, labels_given=labels_given)
    return extend(core, candidates, options, how, judged, loader.progress)


def extend(
    core: Samples,
    pool: Samples,
    options: SolveOptions,
    how: ExtendOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> ExtendResult:
    """Choose pool samples by the rule that serves best, in batches with an exact refit after each.

    The core is trained on at its weights, and its labels are taken to be right. Of a labelled pool the choice
    serves everything that core and pool show, as far as labels are trusted. With a validation set it serves
    that set, of an unlabelled pool the core. `divacli.ridge.pool.choice` says which rule that is done by.

    Args:
        core: Samples to extend.
        pool: Candidates, labelled or not.
        options: How the problem is posed.
        how: Budget, rule and batches.
        validation: A separate validation set. Its labels are among those of core and pool.
        progress: Told of every sample that is chosen.

    Raises:
        DataError: Features that do not fit, nothing in the pool that could be chosen, or a rule that needs
            what is not there.
        SolveError: The core's problem has no answer.
    """
    start = time.monotonic()
    how = how.of_pool(len(pool))
    check_pool(core, pool, options)
    check_rule(pool, how, validation)
    everybody = shared_classes(core, pool)
    labelled = pool.manifest.labelled
    judged = core if validation is None else validation
    with progress("fitting the core", 0):
        problem = pose_choice(core, pool, options, how, validation, everybody)
    with progress("judging the pool", 0):
        reasons = barred_samples(core, pool, judged, options)
        problem = with_possible(problem, torch.from_numpy((reasons == "").to_numpy(copy=True)), options)
        trust = trust_of(problem, how)
        n_possible = int(problem.possible.sum())
        budget = n_possible if how.budget is None else min(how.budget, n_possible)
    rule, why, outlook, unknown = rule_of(problem, trust, how, budget, progress)
    walk: PoolWalk
    with progress("looking at the pool", 0):
        if how.start_full:
            order = problem.order
            walk = Reduction(problem.core, problem.pool, order, ridge=options.ridge, robust=problem.robust)
        else:
            fill = how.budget is not None
            walk = started(problem, trust, rule, fill=fill, seed=options.seed)
        candidates = first = walk.candidates()
    at_once = how.refit_every or batch_size(budget)
    if how.start_full:
        at_once = budget
    free = problem.possible.clone()
    state = walk.state
    history = [{"batch": 0, "n_selected": len(pool) if how.start_full else 0, **vars(state)}]
    chosen: list[np.ndarray] = []
    batches: list[pd.DataFrame] = []
    n_chosen = 0
    with progress("choosing", budget) as advance:
        while n_chosen < budget:
            eligible = free & (candidates.trust >= problem.min_trust)
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
    left = free & (candidates.trust >= problem.min_trust)
    stopped = "no other one lowers the loss"
    if n_chosen == n_possible:
        stopped = "all were chosen"
    elif n_chosen == budget < n_possible:
        stopped = "the budget was spent"
    elif not bool(left.any()) and n_chosen < n_possible:
        stopped = "no other label is trusted"
    selected = selected_samples(pool, rows, batches, first, everybody)
    remaining = remaining_samples(
        pool,
        reasons,
        free,
        candidates,
        everybody,
        problem.min_trust,
        stopped,
        ranked=rule not in (RANDOM, BALANCED),
    )
    if not n_chosen and outlook is not None:
        outlook, unknown = None, NOTHING_CHOSEN
    table = pd.DataFrame(history)
    about = provenance(core, options, pool, validation)
    by_core = f"{left_out(about)} loss of the core"
    by = "validation set" if validation is not None else by_core
    if validation is None and rule != DERIVATIVE:
        by = f"{left_out(about)} loss of core and pool"
    summary = {
        "n_core": len(core),
        "n_pool": len(pool),
        "n_selected": n_chosen,
        "budget": how.budget,
        "refit_every": at_once,
        "stopped": stopped,
        "labelled": labelled,
        "judged_by": by,
        "rule": rule,
        "why": why,
        "forecast": None if outlook is None else outlook.as_dict(),
        "min_trust": problem.min_trust,
        "pool_noise": pool_noise(first, trust, len(everybody)) if labelled else None,
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
    return ExtendResult(selected, extended, remaining, table, core, pool, first, outlook, unknown, summary)


def pose_choice(
    core: Samples,
    pool: Samples,
    options: SolveOptions,
    how: ExtendOptions,
    validation: Samples | None,
    classes: list[str],
) -> PoolProblem:
    """Core, pool and validation set in one problem, in the kernel form where they are few.

    Args:
        core: The core.
        pool: The pool.
        options: How the problem is posed.
        how: As of `extend`.
        validation: As of `extend`.
        classes: Label of each class number.

    Raises:
        DataError: Labels or features that do not fit.
    """
    task = pose(core, options, classes)
    posed_pool = pose_pool(task, pool, classes, options)
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
        min_trust=0.0 if how.start_full else how.min_trust,
        seed=options.seed,
    )


def with_possible(problem: PoolProblem, possible: torch.Tensor, options: SolveOptions) -> PoolProblem:
    """The problem with those who may be chosen, (m,) bool, and each class counting alike where it is to."""
    balance = None
    if options.balanced and problem.labelled:
        balance = balanced(possible.double(), problem.pool.labels)
    return replace(problem, possible=possible, balance=balance)


def trust_of(problem: PoolProblem, how: ExtendOptions) -> PoolTrust | None:
    """How far the pool's labels are trusted; None where there are none, or the core's fit alone says it."""
    if not problem.labelled or how.trust_core or how.start_full:
        return None
    return fit_trust(
        problem.core,
        problem.pool,
        problem.order,
        problem.pool_order,
        validation=problem.validation,
        usable=problem.possible,
        ridge=problem.ridge,
        seed=problem.seed,
    )


def rule_of(
    problem: PoolProblem, trust: PoolTrust | None, how: ExtendOptions, budget: int, progress: Progress
) -> tuple[str, str, Outlook | None, str]:
    """The rule that is chosen by and why, its forecast, and why there is none.

    Args:
        problem: What is chosen from.
        trust: How far its labels are trusted.
        how: As of `extend`.
        budget: Samples to choose at the most.
        progress: Told of every fold.
    """
    if how.start_full:
        return (
            DERIVATIVE,
            "the whole pool is in, and what harms the core goes",
            None,
            "the pool is of another kind",
        )
    rules = (how.by,) if how.by is not None else possible_rules(problem, trust, how)
    why = "it was asked for" if how.by is not None else "there is nothing to compare with"
    if trust is None:
        unknown = "the pool has no labels" if not problem.labelled else "the pool is of another kind"
        return rules[0], why if problem.labelled or how.by is not None else unknown, None, unknown
    if not bool(problem.eligible(trust).any()):
        return rules[0], why, None, NOTHING_CHOSEN
    if len(rules) == 1 and not how.forecast:
        return rules[0], why, None, "it was not asked for"
    fill = how.budget is not None
    try:
        with progress("judging rules by folds", POOL_FOLDS) as advance:
            found = informed(
                forecast_rules(problem, trust, rules, budget, fill=fill, judged=lambda: advance(1))
            )
    except SolveError as error:
        return rules[0], "the folds do not tell" if len(rules) > 1 else why, None, error.got
    names = [TRUSTED if rule == RANDOM else rule for rule in rules]
    name = preferred(found, names)
    if len(rules) > 1:
        why = "it comes first, and no other has a smaller error in the folds"
        if all(torch.equal(found.wrong[other], found.wrong[name]) for other in names):
            why = "it comes first: in the folds the budget takes all that is trusted"
        if name != names[0]:
            why = f"it has a smaller error in the folds than {names[0]}"
    return rules[names.index(name)], why, Outlook(found, name), ""


def possible_rules(problem: PoolProblem, trust: PoolTrust | None, how: ExtendOptions) -> tuple[str, ...]:
    """The rules that folds may choose between, in the order in which they are trusted without these."""
    if problem.validation is not None or trust is None:
        return (RANDOM, DERIVATIVE) if trust is not None and how.budget is not None else (DERIVATIVE,)
    if how.budget is None or how.budget >= int(problem.eligible(trust).sum()):
        # Whoever takes all that is trusted has no choice.
        return (CORESET,)
    return (CORESET, BALANCED, RANDOM)


def pool_noise(first: Candidates, trust: PoolTrust | None, n_classes: int) -> float:
    """Share of wrong labels in the pool, as estimated."""
    if trust is not None:
        return trust.noise
    # A label drawn from all classes alike is right by chance once in as many times as there are classes.
    return first.noise * (1 - 1 / n_classes)


def check_rule(pool: Samples, how: ExtendOptions, validation: Samples | None) -> None:
    """Refuse a rule that needs what is not there.

    Raises:
        DataError: There is no such rule, or `coreset` without labels or with a validation set.
    """
    if how.by is None:
        return
    if how.by not in RULES:
        raise DataError(f"rule {how.by!r}", expected=listed(list(RULES)))
    if how.by == BALANCED and not pool.manifest.labelled:
        raise DataError(
            f"--by {BALANCED} with a pool without labels",
            expected="a labelled pool",
            hint=f"use --by {DERIVATIVE} or --by {RANDOM}, or leave --by out",
        )
    if how.by == CORESET and (validation is not None or not pool.manifest.labelled):
        raise DataError(
            f"--by {CORESET} with " + ("--val" if validation is not None else "a pool without labels"),
            expected="a labelled pool: the choice serves what core and pool show",
            hint=f"use --by {DERIVATIVE} or --by {RANDOM}, or leave --by out",
        )


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
