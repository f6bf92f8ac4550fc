"""Choosing from a pool: what a choice is made from, and the batches of a choice by a rule.

`coreset` brings the fit closest to that on all (`coreset.py`), `balanced` takes the next sample of
the class with the fewest, `derivative` those with the lowest derivative (`extension.py`), `random`
any. All choose among samples whose labels are trusted. Which rule serves best, folds say
(`divacli.ridge.pool.forecast`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.pool.coreset import Coreset, at_random, drawn_places
from divacli.ridge.pool.extension import Candidates, Extension, State
from divacli.ridge.pool.trust import PoolTrust

CORESET, BALANCED, DERIVATIVE, RANDOM = "coreset", "balanced", "derivative", "random"
RULES = (CORESET, BALANCED, DERIVATIVE, RANDOM)

BATCHES = 20
"""Refits of a choice, where nobody says how many."""

MOST_AT_ONCE = 256
"""Samples chosen between two refits, at the most, likewise."""

JUDGED_BATCHES = 5
"""Refits of a choice that is made to judge its rule: it should not last longer than the choice itself."""


class PoolWalk(Protocol):
    """A choice from a pool that is under way."""

    @property
    def state(self) -> State:
        """Where the choice stands."""

    def candidates(self) -> Candidates:
        """What the present fit says of every pool sample."""

    def choose(self, candidates: Candidates, eligible: Tensor, size: int) -> Tensor:
        """The next batch: rows of the pool, at most `size` of those (m,) that are eligible."""

    def add(self, chosen: Tensor) -> None:
        """Refit with these rows."""


@dataclass(frozen=True)
class PoolProblem:
    """What a choice from a pool is made from.

    Attributes:
        core: The core, whose labels are right.
        pool: The candidates, each at the weight that it would enter with.
        order: (n,) row numbers of the core in an order that does not depend on how they are stored.
        pool_order: (m,) likewise of the pool.
        possible: (m,) bool, who may be chosen at all.
        validation: A set that the choice is to serve in place of what core and pool show.
        validation_order: (v,) its row numbers, as `order`.
        ridge: lambda, or None for the leave-one-out optimum of every fit.
        robust: Whether the rule `derivative` differentiates the calibrated cross-entropy.
        labelled: Whether the pool has labels.
        min_trust: The least probability of a label to be chosen with.
        balance: (m,) float64 how much each pool sample counts in the loss beside its trust.
        seed: Of what is drawn at random.
    """

    core: RidgeTask
    pool: RidgeTask
    order: Tensor
    pool_order: Tensor
    possible: Tensor
    validation: RidgeTask | None = None
    validation_order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    ridge: float | None = None
    robust: bool = False
    labelled: bool = True
    min_trust: float = 0.5
    balance: Tensor | None = None
    seed: int = 0

    def eligible(self, trust: PoolTrust | None) -> Tensor:
        """(m,) bool, who may be chosen with a label that is trusted."""
        return self.possible if trust is None else self.possible & (trust.probability >= self.min_trust)

    def counted(self, trust: PoolTrust) -> Tensor:
        """(m,) float64 how much each pool sample counts in the loss."""
        counted = trust.probability * self.possible
        return counted if self.balance is None else counted * self.balance


class AtRandom:
    """A choice in an order that was drawn before, which looks at the pool as another one does.

    Args:
        walk: The other.
        place: (m,) int64 place of every pool sample in the order.
    """

    def __init__(self, walk: PoolWalk, place: Tensor) -> None:
        self._walk = walk
        self._place = place

    @property
    def state(self) -> State:
        """Where the choice stands."""
        return self._walk.state

    def candidates(self) -> Candidates:
        """As the other one sees them."""
        return self._walk.candidates()

    def choose(self, candidates: Candidates, eligible: Tensor, size: int) -> Tensor:
        """The next in the order."""
        return at_random(self._place, eligible, size)

    def add(self, chosen: Tensor) -> None:
        """Refit with these rows."""
        self._walk.add(chosen)


def places(problem: PoolProblem, trust: PoolTrust | None, rule: str) -> Tensor:
    """Place (m,) int64 of every pool sample in the order of `RANDOM` or `BALANCED`.

    In the second one the next sample is always of the class with the fewest in the core and before it; among
    classes of one number, and within a class, the order is random.
    """
    drawn = drawn_places(problem.pool_order, problem.seed)
    if rule == RANDOM:
        return drawn
    rows = problem.eligible(trust).nonzero()[:, 0]
    labels, core = problem.pool.labels[rows], problem.core
    first = rows[drawn[rows].argsort()]
    by_class = first[torch.argsort(problem.pool.labels[first], stable=True)]
    counts = torch.bincount(labels, minlength=core.n_classes)
    start = torch.cumsum(counts, 0) - counts
    here = problem.pool.labels[by_class]
    before = torch.arange(len(by_class)) - start[here]
    number = torch.full_like(drawn, len(drawn) + len(core))
    number[by_class] = before + torch.bincount(core.labels[core.weights > 0], minlength=core.n_classes)[here]
    by_place = drawn.argsort()
    order = by_place[torch.argsort(number[by_place], stable=True)]
    place = torch.empty_like(drawn)
    place[order] = torch.arange(len(order))
    return place


def started(problem: PoolProblem, trust: PoolTrust | None, rule: str, *, fill: bool, seed: int) -> PoolWalk:
    """A choice by a rule, where it begins.

    Args:
        problem: The problem.
        trust: How far the pool's labels are trusted; None where the core's fit alone says it.
        rule: One of `RULES`.
        fill: As of `Coreset`.
        seed: Of what is drawn at random.
    """
    walk: PoolWalk
    if problem.validation is not None or trust is None or rule == DERIVATIVE:
        walk = Extension(
            problem.core,
            problem.pool,
            problem.order if problem.validation is None else problem.validation_order,
            ridge=problem.ridge,
            robust=problem.robust,
            validation=problem.validation,
            labelled=problem.labelled,
            trust=None if trust is None else (trust.probability, trust.noise),
        )
    else:
        walk = Coreset(
            problem.core,
            problem.pool,
            trust,
            problem.order,
            problem.pool_order,
            counted=problem.counted(trust),
            ridge=problem.ridge,
            fill=fill,
            seed=seed,
        )
    return AtRandom(walk, places(problem, trust, rule)) if rule in (RANDOM, BALANCED) else walk


def walked(
    problem: PoolProblem,
    trust: PoolTrust | None,
    rule: str,
    budget: int,
    *,
    fill: bool,
    n_batches: int = BATCHES,
) -> Iterator[tuple[Tensor, Candidates]]:
    """The batches of a choice: rows (b,) of the pool, and what was known of all when they were chosen."""
    if rule in (RANDOM, BALANCED):
        # All at once: no fit is asked.
        place = places(problem, trust, rule)
        nothing = torch.zeros(len(place), dtype=torch.float64)
        yield at_random(place, problem.eligible(trust), budget), Candidates(nothing, nothing, place, place, 0)
        return
    walk = started(problem, trust, rule, fill=fill, seed=problem.seed)
    yield from batches(walk, problem.eligible(trust), budget, batch_size(budget, n_batches))


def batches(
    walk: PoolWalk, eligible: Tensor, budget: int, at_once: int
) -> Iterator[tuple[Tensor, Candidates]]:
    """The batches of a choice, with a refit after each that is asked for another.

    Args:
        walk: Where it begins.
        eligible: (m,) bool, who may be chosen.
        budget: How many at the most.
        at_once: How many between two refits.
    """
    free, left = eligible.clone(), budget
    while left > 0:
        candidates = walk.candidates()
        rows = walk.choose(candidates, free, min(at_once, left))
        if not len(rows):
            return
        free[rows] = False
        left -= len(rows)
        yield rows, candidates
        if left > 0:
            walk.add(rows)


def batch_size(budget: int, n_batches: int = BATCHES) -> int:
    """Samples chosen between two refits, where nobody says how many."""
    return max(1, min(MOST_AT_ONCE, -(-budget // n_batches)))
