"""What a choice from a pool does to the error on new samples, beside the core alone and a random choice.

A fold leaves the pool, or the validation set; the core stays, for without a part of it a small core would be
another one. The choice is made from the others, as large as the real one and with fewer refits, and the fold
judges every rule. How far the pool's labels are trusted is found once, by all: in this the fold has a say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from divacli.ridge.forecast import RANDOM, Forecast, Rest, TrainingWeights, forecast
from divacli.ridge.pool.choice import JUDGED_BATCHES, PoolProblem, walked
from divacli.ridge.pool.coreset import at_random, drawn_places
from divacli.ridge.pool.reduction import merged
from divacli.ridge.pool.trust import PoolTrust, leave_out
from divacli.ridge.weights.problem import Problem

POOL_FOLDS = 3
"""Each makes the choice anew, which takes longer than all else."""

LEAST = 0.5
"""Right labels of a class that are expected in the pool, from which on the pool alone speaks for it."""

TRUSTED = "random, trusted"
"""What a random choice among those whose labels are trusted is called in a forecast."""


def forecast_rules(
    problem: PoolProblem,
    trust: PoolTrust,
    rules: Sequence[str],
    budget: int,
    *,
    fill: bool,
    judged: Callable[[], None] = lambda: None,
) -> Forecast:
    """Forecast the error of core and choice by each rule; nothing is the core alone.

    Args:
        problem: Core, pool, and the set that the choice is to serve.
        trust: How far the pool's labels are trusted.
        rules: Of `RULES`; `RANDOM` among those that are trusted is named `TRUSTED`.
        budget: Samples that are chosen, at the most.
        fill: As of `walked`.
        judged: Called after each fold.

    Raises:
        SolveError: Too few samples for folds.
    """
    core, pool = problem.core, problem.pool
    n = len(core)
    ridge = trust.ridge if problem.ridge is None else problem.ridge
    nobody = torch.zeros(len(pool), dtype=torch.float64)
    both = merged(core, pool, nobody)
    training_order = torch.cat([problem.order, n + problem.pool_order])
    if problem.validation is None:
        mask = torch.cat(judges(problem, trust))
        posed = Problem(replace(both, validation_mask=mask), ridge, training_order, robust=False)
        counted = torch.cat([torch.ones(n, dtype=torch.float64), trust.probability])
    else:
        posed = Problem(both, ridge, problem.validation_order, robust=False, validation=problem.validation)
        counted = torch.ones(len(problem.validation), dtype=torch.float64)

    def decide(rest: Rest) -> dict[str, TrainingWeights]:
        rows = torch.arange(len(pool))
        if problem.validation is None:
            rows = (~rest.inside[n:]).nonzero()[:, 0]
        part, part_trust = _without(problem, trust, rows, rest)
        size = min(budget, int(part.eligible(part_trust).sum()))
        found = {}
        for rule in rules:
            batches = walked(part, part_trust, rule, size, fill=fill, n_batches=JUDGED_BATCHES)
            chosen = torch.cat([rows[:0], *(rows[batch] for batch, _ in batches)])
            found[TRUSTED if rule == RANDOM else rule] = _trained(rest, pool.weights, chosen)
            if RANDOM not in found:
                there = part.pool.weights > 0
                drawn = rows[at_random(drawn_places(part.pool_order, rest.seed), there, len(chosen))]
                found[RANDOM] = _trained(rest, pool.weights, drawn)
        return found

    return forecast(
        posed,
        decide,
        counted,
        order=training_order,
        counted=torch.ones(len(both), dtype=torch.bool),
        stays=torch.cat([torch.ones(n, dtype=torch.bool), torch.zeros(len(pool), dtype=torch.bool)]),
        fixed_ridge=problem.ridge is not None,
        n_folds=POOL_FOLDS,
        seed=problem.seed,
        judged=judged,
    )


def judges(problem: PoolProblem, trust: PoolTrust) -> tuple[Tensor, Tensor]:
    """How much each sample of core (n,) and pool (m,) counts, float64, so that both stand for new ones.

    The classes count as they do in core and pool together. The core has a part in every head, so the pool
    says what becomes of a class. Where it has hardly a sample of a class, those of the core say it, too, each
    left out of the heads in turn: a head of few samples is judged too hard by that.

    Args:
        problem: Core and pool.
        trust: How far the pool's labels are trusted: what is expected of a class.
    """
    k = problem.core.n_classes
    usable = problem.possible.double()
    there = problem.core.validation_mask * (problem.core.weights > 0)
    core = torch.bincount(problem.core.labels, there, minlength=k)
    pool = torch.bincount(problem.pool.labels, usable * trust.probability, minlength=k)
    both = torch.ones(k).double() if problem.balance is not None else core + pool
    alone = pool >= LEAST
    total = torch.where(alone, pool, core + pool)
    factor = torch.where(total > 0, both / total, 0.0)
    return (
        there * torch.where(alone, 0.0, factor)[problem.core.labels],
        usable * factor[problem.pool.labels],
    )


def _without(
    problem: PoolProblem, trust: PoolTrust, rows: Tensor, rest: Rest
) -> tuple[PoolProblem, PoolTrust]:
    """The choice and the trust as they are without a fold.

    Args:
        problem: The whole problem.
        trust: Of the whole pool.
        rows: (m,) of the pool that are there.
        rest: The samples without the fold.
    """
    pool = problem.pool.select(rows)
    part = replace(
        problem,
        pool=pool,
        pool_order=_among(problem.pool_order, rows),
        possible=problem.possible[rows],
        balance=None if problem.balance is None else problem.balance[rows],
        validation=rest.problem.validation,
        seed=rest.seed,
    )
    probability = trust.probability[rows]
    outputs, ridge = leave_out(problem.core, pool, probability, problem.ridge)
    part_trust = PoolTrust(
        probability, trust.noise, trust.predicted[rows], trust.confidence[rows], outputs, ridge
    )
    return part, part_trust


def _among(order: Tensor, rows: Tensor) -> Tensor:
    """An order of all samples as one of some of them, ascending row numbers."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return torch.argsort(place[rows])


def _trained(rest: Rest, weights: Tensor, chosen: Tensor) -> TrainingWeights:
    """The core that is there with some pool samples at their weights."""
    trained = rest.task.weights.clone()
    at = len(trained) - len(weights) + chosen
    trained[at] = weights[chosen]
    return TrainingWeights(trained)
