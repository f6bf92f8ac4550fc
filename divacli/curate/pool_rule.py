"""How much is chosen from a pool, and by which rule: the one that serves best in folds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from divacli.curate.outlook import Outlook, informed, preferred
from divacli.errors import DataError, SolveError, listed
from divacli.features import Samples
from divacli.progress import Progress
from divacli.ridge import (
    POOL_FOLDS,
    RULES,
    TRUSTED,
    Candidates,
    PoolProblem,
    PoolTrust,
    fit_trust,
    forecast_rules,
)
from divacli.ridge.pool.choice import BALANCED, CORESET, DERIVATIVE, RANDOM

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
