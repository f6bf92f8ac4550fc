"""What a choice from a pool does to the error on new samples, beside the core alone and a random choice.

A fold leaves the pool, or the validation set; the core stays, for without a part of it a small core would be
another one. The choice is made from the others, as large as the real one and with fewer refits, and the fold
judges. How far the pool's labels are trusted, and the rule, are found once, by all: in these two the fold has
a say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from divacli.ridge.coreset import at_random, drawn_places
from divacli.ridge.forecast import RANDOM, Forecast, Rest, Training, forecast
from divacli.ridge.pool_choice import JUDGED_BATCHES, PoolProblem, representing, walked
from divacli.ridge.problem import Problem
from divacli.ridge.reduction import merged
from divacli.ridge.trust import PoolTrust, leave_out

POOL_FOLDS = 3
"""Each makes the choice anew, which takes longer than all else."""

CHOICE = "choice"
"""What the choice is called in its forecast."""


def forecast_choice(
    problem: PoolProblem,
    trust: PoolTrust,
    rule: str,
    budget: int,
    ridge: float,
    *,
    fill: bool,
    judged: Callable[[], None] = lambda: None,
) -> Forecast:
    """Forecast the error of core and choice; nothing is the core alone.

    Args:
        problem: Core, pool, and the set that the choice is to serve.
        trust: How far the pool's labels are trusted.
        rule: That the choice was made by.
        budget: Samples that were chosen, at the most.
        ridge: Where heads begin to look for theirs.
        fill: As of `walked`.
        judged: Called after each fold.

    Raises:
        SolveError: Too few samples for folds.
    """
    core, pool = problem.core, problem.pool
    n = len(core)
    nobody = torch.zeros(len(pool), dtype=torch.float64)
    both = merged(core, pool, nobody)
    training_order = torch.cat([problem.order, n + problem.pool_order])
    if problem.validation is None:
        judges = problem.possible.double()
        judges = judges if problem.balance is None else judges * problem.balance
        judges = representing(problem, judges)
        mask = torch.cat([torch.zeros_like(core.validation_mask), judges])
        posed = Problem(replace(both, validation_mask=mask), ridge, training_order, robust=False)
        counted = torch.cat([torch.ones(n, dtype=torch.float64), trust.probability])
    else:
        posed = Problem(both, ridge, problem.validation_order, robust=False, validation=problem.validation)
        counted = torch.ones(len(problem.validation), dtype=torch.float64)

    def decide(rest: Rest) -> dict[str, Training]:
        rows = torch.arange(len(pool))
        if problem.validation is None:
            rows = (~rest.inside[n:]).nonzero()[:, 0]
        part, part_trust = _without(problem, trust, rows, rest)
        size = min(budget, int(part.eligible(part_trust).sum()))
        batches = walked(part, part_trust, rule, size, fill=fill, n_batches=JUDGED_BATCHES)
        chosen = torch.cat([rows[:0], *(rows[batch] for batch, _ in batches)])
        there = part.pool.weights > 0
        drawn = rows[at_random(drawn_places(part.pool_order, rest.seed), there, len(chosen))]
        return {CHOICE: _trained(rest, pool.weights, chosen), RANDOM: _trained(rest, pool.weights, drawn)}

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
    outputs = leave_out(problem.core, pool, probability, problem.ridge)
    part_trust = PoolTrust(probability, trust.noise, trust.predicted[rows], trust.confidence[rows], outputs)
    return part, part_trust


def _among(order: Tensor, rows: Tensor) -> Tensor:
    """An order of all samples as one of some of them, ascending row numbers."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return torch.argsort(place[rows])


def _trained(rest: Rest, weights: Tensor, chosen: Tensor) -> Training:
    """The core that is there with some pool samples at their weights."""
    trained = rest.task.weights.clone()
    at = len(trained) - len(weights) + chosen
    trained[at] = weights[chosen]
    return Training(trained)
