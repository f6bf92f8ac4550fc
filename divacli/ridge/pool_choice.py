"""Which rule a choice from a pool follows, as closed-form K-fold decides, and the choice itself.

A choice may lose to drawing at random among the samples whose labels are trusted. So it has to beat that
draw: in each fold a rule chooses its share of the budget without the fold, a fit on core and choice predicts
the fold, and so does a fit on as many samples drawn at random. Where the rule's loss is not lower by more
than its standard error, or its share of mistakes is larger, the answer is to draw at random.

    found = choose_rows(core, pool, budget, order, pool_order)
    found.rows, found.rule, found.trials
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from divacli.ridge.coreset import Coreset, at_random, drawn_places
from divacli.ridge.extension import Candidates, Extension, State
from divacli.ridge.folds import split_in_folds
from divacli.ridge.leave_one_out import predictable
from divacli.ridge.moments import decompose
from divacli.ridge.path import ridge_path
from divacli.ridge.problem import predictions
from divacli.ridge.reduction import merged
from divacli.ridge.task import RidgeTask
from divacli.ridge.trust import PoolTrust, fit_trust, leave_out

CORESET, BALANCED, DERIVATIVE, RANDOM = "coreset", "balanced", "derivative", "random"
RULES = (CORESET, BALANCED, DERIVATIVE, RANDOM)

BATCHES = 20
"""Refits of a choice, where nobody says how many."""

MOST_AT_ONCE = 256
"""Samples chosen between two refits, at the most, likewise."""

JUDGED_AT_MOST = 4000
"""Pool samples that take part in the judging of rules."""

JUDGED_BATCHES = 8
"""Refits of a choice that is made to judge its rule: it should not last longer than the choice itself."""

_FOLDS = 2
_DRAWS = 3
"""Random draws that a rule is compared with, in each fold."""

_SURENESS = 1.0
"""Standard errors by which a rule has to be better than random."""


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


def representing(problem: PoolProblem, counted: Tensor) -> Tensor:
    """How much each pool sample counts where the pool stands for core and pool, (m,) float64.

    A core that was taken evenly from all classes leaves a pool of the large ones. So the samples of a class
    count for those of the core, too. Where classes count alike anyway, nothing changes.

    Args:
        problem: Core and pool.
        counted: (m,) float64, how much each counts for itself.
    """
    if problem.balance is not None:
        return counted
    k = problem.core.n_classes
    core = torch.bincount(problem.core.labels, problem.core.validation_mask, minlength=k)
    pool = torch.bincount(problem.pool.labels, counted, minlength=k)
    factor = torch.where(pool > 0, (core + pool) / pool, 0.0)
    return counted * factor[problem.pool.labels]


@dataclass(frozen=True)
class RuleTrial:
    """One rule, as the folds judge it.

    Attributes:
        rule: Its name.
        loss: Mean squared loss of samples that took no part in the choice, weighted by how far their labels
            are trusted.
        error: Share of them predicted as another class than their label, likewise.
        gain: By how much the loss is lower than with as many samples drawn at random.
        gain_error: Standard error of the gain, from the spread over samples.
        fewer: By how much the error is lower, likewise.
        fewer_error: Standard error of that.
    """

    rule: str
    loss: float
    error: float
    gain: float
    gain_error: float
    fewer: float
    fewer_error: float


@dataclass(frozen=True)
class PoolChoice:
    """What was chosen from a pool.

    Attributes:
        rows: (c,) int64 rows of the pool in the order of choice.
        rule: What they were chosen by.
        trials: What the folds said of the rules; none where they were not asked.
        trust: How far the pool's labels are trusted; None without labels.
    """

    rows: Tensor
    rule: str
    trials: tuple[RuleTrial, ...]
    trust: PoolTrust | None


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


def choose_rows(
    core: RidgeTask,
    pool: RidgeTask,
    budget: int | None,
    order: Tensor,
    pool_order: Tensor,
    *,
    rule: str | None = None,
    possible: Tensor | None = None,
    min_trust: float = 0.5,
    ridge: float | None = None,
    seed: int = 0,
) -> PoolChoice:
    """Choose from a labelled pool: trust, rule and choice from these samples alone, nothing else.

    For whoever judges the whole procedure by samples that it never saw: leave them out of `core` and `pool`.

    Args:
        core: The core, whose labels are right.
        pool: (m) candidates, each at the weight that it would enter with.
        budget: How many at the most; None: until none brings the fit closer to that on all.
        order: (n,) row numbers of the core in an order that does not depend on how they are stored.
        pool_order: (m,) likewise of the pool.
        rule: One of `RULES`; None: the folds decide.
        possible: (m,) bool, who may be chosen; by default all.
        min_trust: The least probability of a label to be chosen with.
        ridge: lambda, or None for the leave-one-out optimum of every fit.
        seed: Of what is drawn at random.

    Raises:
        SolveError: The core's problem has no answer.
    """
    possible = torch.ones(len(pool), dtype=torch.bool) if possible is None else possible
    problem = PoolProblem(
        core, pool, order, pool_order, possible, ridge=ridge, min_trust=min_trust, seed=seed
    )
    trust = fit_trust(core, pool, order, pool_order, usable=possible, ridge=ridge, seed=seed)
    trials: tuple[RuleTrial, ...] = ()
    if rule is None:
        rule, trials = decide(problem, trust, budget)
    size = int(problem.eligible(trust).sum()) if budget is None else budget
    parts = [rows for rows, _ in walked(problem, trust, rule, size, fill=budget is not None)]
    return PoolChoice(torch.cat([pool_order[:0], *parts]), rule, trials, trust)


def decide(
    problem: PoolProblem, trust: PoolTrust | None, budget: int | None
) -> tuple[str, tuple[RuleTrial, ...]]:
    """The rule that a choice follows, and what the folds say of the rules.

    Args:
        problem: The problem.
        trust: How far the pool's labels are trusted; None without labels: then the rule is `derivative`.
        budget: As of `choose_rows`; without one there is nothing to compare with, for a random draw of all
            that is trusted is all of it.
    """
    rules = (CORESET, BALANCED) if problem.validation is None and problem.labelled else (DERIVATIVE,)
    if trust is None or budget is None:
        return rules[0], ()
    trials = judged(problem, trust, rules, budget)
    if not trials:
        return rules[0], ()
    chosen: RuleTrial | None = None
    for trial in trials[:-1]:
        if trial.gain <= _SURENESS * trial.gain_error or trial.fewer < 0:
            continue
        if chosen is None or _clearly_fewer(trial, chosen):
            chosen = trial
    return (RANDOM if chosen is None else chosen.rule), trials


def _clearly_fewer(trial: RuleTrial, other: RuleTrial) -> bool:
    """Whether a rule makes fewer mistakes than another one by more than a standard error."""
    return trial.fewer - other.fewer > _SURENESS * math.hypot(trial.fewer_error, other.fewer_error)


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
        trust: As of `decide`.
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


def judged(
    problem: PoolProblem, trust: PoolTrust, rules: Sequence[str], budget: int
) -> tuple[RuleTrial, ...]:
    """What folds say of rules and, last, of drawing at random; nothing where they are too small to say it.

    The folds are halves: of the pool, of which each chooses what serves the other; or of the validation set.

    Args:
        problem: The problem.
        trust: How far the pool's labels are trusted.
        rules: Of `RULES`.
        budget: Samples to choose.
    """
    split = _pool_parts if problem.validation is None else _validation_parts
    found: dict[str, list[Tensor]] = {rule: [] for rule in (*rules, RANDOM)}
    shares = []
    for part, part_trust, size, held, share in split(problem, trust, budget):
        if size < 1 or float(share.sum()) <= 0:
            return ()
        for rule in rules:
            rows = torch.cat(
                [now for now, _ in walked(part, part_trust, rule, size, fill=True, n_batches=JUDGED_BATCHES)]
            )
            found[rule].append(_outcome(part, rows, held))
        draws = [
            torch.cat([now for now, _ in walked(other, part_trust, RANDOM, len(rows), fill=True)])
            for other in (replace(part, seed=part.seed + 1 + draw) for draw in range(_DRAWS))
        ]
        found[RANDOM].append(torch.stack([_outcome(part, drawn, held) for drawn in draws]).mean(dim=0))
        shares.append(share)
    if not shares:
        return ()
    weight = torch.cat(shares) / sum(float(share.sum()) for share in shares)
    outcomes = {name: torch.cat(parts) for name, parts in found.items()}
    trials = []
    for name, outcome in outcomes.items():
        lower = outcomes[RANDOM] - outcome
        gains = weight @ lower
        spread = (weight.square() @ (lower - gains).square()).sqrt()
        loss, error = (weight @ outcome).tolist()
        gain, fewer = gains.tolist()
        gain_error, fewer_error = spread.tolist()
        trials.append(RuleTrial(name, loss, error, gain, gain_error, fewer, fewer_error))
    return tuple(trials)


_Part = tuple[PoolProblem, PoolTrust, int, RidgeTask, Tensor]
"""A problem without a fold, its trust, how much to choose, the fold, and how much each of it counts."""


def _pool_parts(problem: PoolProblem, trust: PoolTrust, budget: int) -> Iterator[_Part]:
    """Halves of those who may be chosen and of those who count: each is chosen from for the other."""
    counted = representing(problem, problem.counted(trust))
    place = drawn_places(problem.pool_order, problem.seed)
    drawn = at_random(place, problem.possible, JUDGED_AT_MOST)
    share = len(drawn) / max(1, int(problem.possible.sum()))
    half = split_in_folds(problem.pool.labels[drawn], torch.arange(len(drawn)), problem.seed, _FOLDS)
    for side in range(_FOLDS):
        rows, held = drawn[half != side], drawn[half == side]
        pool = problem.pool.select(rows)
        probability = trust.probability[rows]
        outputs = leave_out(problem.core, pool, probability, problem.ridge)
        part_trust = PoolTrust(
            probability, trust.noise, trust.predicted[rows], trust.confidence[rows], outputs
        )
        part = replace(
            problem,
            pool=pool,
            pool_order=torch.arange(len(rows)),
            possible=torch.ones(len(rows), dtype=torch.bool),
            balance=None if problem.balance is None else problem.balance[rows],
        )
        size = round(budget * share * len(rows) / max(1, len(drawn)))
        yield part, part_trust, size, problem.pool.select(held), counted[held]


def _validation_parts(problem: PoolProblem, trust: PoolTrust, budget: int) -> Iterator[_Part]:
    """Halves of the validation set: what serves one is judged by the other."""
    assert problem.validation is not None
    order, mask = problem.validation_order, problem.validation.validation_mask
    half = split_in_folds(problem.validation.labels, order, problem.seed, _FOLDS)
    for side in range(_FOLDS):
        inside = half == side
        if not bool((mask[~inside] > 0).any()):
            continue
        validation = replace(problem.validation, validation_mask=torch.where(inside, 0.0, mask))
        held = inside.nonzero()[:, 0]
        yield (
            replace(problem, validation=validation),
            trust,
            budget,
            problem.validation.select(held),
            mask[held],
        )


def _outcome(problem: PoolProblem, rows: Tensor, held: RidgeTask) -> Tensor:
    """Squared loss and mistake (h, 2) float64 of held-out samples by the fit on core and choice."""
    chosen = problem.pool.select(rows)
    task = merged(problem.core, chosen, chosen.weights)
    ridge = problem.ridge
    spectrum = decompose(task)
    if ridge is None:
        mask = torch.cat([problem.core.validation_mask, torch.ones(len(rows), dtype=torch.float64)])
        seen = mask * predictable(task)
        path = ridge_path(replace(task, validation_mask=seen if float(seen.sum()) > 0 else mask), spectrum)
        ridge = float(path.ridges[path.best])
    outputs = predictions(held, spectrum.fit(ridge), torch.arange(len(held)))
    targets = torch.nn.functional.one_hot(held.labels, held.n_classes).double()
    wrong = (outputs.argmax(dim=1) != held.labels).double()
    return torch.stack([(outputs - targets).square().sum(dim=1), wrong], dim=1)
