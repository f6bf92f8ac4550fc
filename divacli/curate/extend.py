"""Choose from a pool what the core lacks, and say what each choice predicts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.outlook import Outlook
from divacli.curate.pool_rule import NOTHING_CHOSEN, ExtendOptions, check_rule, pool_noise, rule_of, trust_of
from divacli.curate.pool_tables import (
    barred_samples,
    described,
    extended_samples,
    remaining_samples,
    selected_samples,
)
from divacli.features import Samples
from divacli.images.failures import failed_counts
from divacli.manifest import relocate
from divacli.progress import Progress, silent
from divacli.results.names import EXTEND, EXTENDED, FAILED, HISTORY, REMAINING, SELECTED
from divacli.results.result import Target
from divacli.ridge import Candidates, PoolWalk, Reduction, batch_size, started
from divacli.ridge.pool.choice import BALANCED, DERIVATIVE, RANDOM
from divacli.solve.loader import Given, Loader
from divacli.solve.pool import check_pool, pose_choice, shared_classes, with_possible
from divacli.solve.provenance import left_out, provenance
from divacli.solve.ridge_problem import SolveOptions

TABLES = (EXTENDED, SELECTED, REMAINING, HISTORY)
"""Tables that are always written, and by diva aggregate too."""

FILES = (*TABLES, f"{EXTEND}.json")
"""What is always written."""


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
        self.write_choice(target, f"{EXTEND}.json", self.summary)

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
        target.table(FAILED, failed, origin, part=True)
        target.table(SELECTED, self.selected, folder or pool_origin)
        target.table(REMAINING, self.remaining, folder or pool_origin, part=True)
        target.records(HISTORY, self.history)
        target.json(name, summary)
        predicted = not self.summary["labelled"]
        target.table(EXTENDED, self.extended, folder or origin, main=True, part=True, relabelled=predicted)


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
        problem = pose_choice(
            core, pool, options, 0.0 if how.start_full else how.min_trust, validation, everybody
        )
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
        **failed_counts(core.failed, pool.failed),
        "seconds": {
            "embed": round(core.seconds + pool.seconds, 3),
            "solve": round(time.monotonic() - start, 3),
        },
        **about,
    }
    extended = extended_samples(core, pool, selected)
    return ExtendResult(selected, extended, remaining, table, core, pool, first, outlook, unknown, summary)
