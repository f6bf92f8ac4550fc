"""In which order samples are dropped, so that they are least missed.

Labels that are called wrong go first, and samples like nothing else; then, by every rule but `RANDOM`, the
classes are thinned out. The next sample to go is of the class with the largest `n / sqrt(N)`, where `N` is
the number of good samples the class began with and `n` of those that are left. So a class of 800 gives more
of its samples than one of 40, for the next sample of a large class says the least that is new. Within a
class the rules differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.forecast import RANDOM

BALANCED, COVERAGE, EASY = "balanced", "coverage", "easy"

RULES = (BALANCED, COVERAGE, EASY, RANDOM)
"""Within a class: at random; those of small leverage first, which the others say already; those with a large
leave-one-out loss first, so that easy ones stay; and at random without regard to labels or classes."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the samples that some are to be dropped of.

    Attributes:
        labels: (n,) int64 class numbers.
        wrong: (n,) float64 probability that the label is wrong.
        called: (n,) bool, samples that go first: wrong labels and outliers.
        loss: (n,) float64 leave-one-out loss.
        leverage: (n,) float64; None where no rule asks for it.
        place: (n,) int64, where each sample stands in an order that does not depend on how they are stored:
            ties, and what is drawn at random, follow it.
    """

    labels: Tensor
    wrong: Tensor
    called: Tensor
    loss: Tensor
    leverage: Tensor | None
    place: Tensor


def dropping_order(rule: str, known: Evidence, seed: int) -> Tensor:
    """Row numbers (n,) int64 of all samples, those that go first coming first.

    Args:
        rule: One of `RULES`.
        known: Of the samples.
        seed: Of what is drawn at random.

    Raises:
        ValueError: There is no such rule.
    """
    drawn = _drawn(known.place, seed)
    if rule == RANDOM:
        return torch.argsort(drawn)
    if rule == COVERAGE and known.leverage is not None:
        within = -_rounded(known.leverage)
    elif rule in (BALANCED, EASY):
        within = drawn if rule == BALANCED else _rounded(known.loss)
    else:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}, coverage with a leverage")
    first = known.called.nonzero()[:, 0]
    # Of those that go first the most probable errors; probabilities near 1 differ by rounding.
    first = first[_descending(known.wrong[first].mul(1e6).round(), drawn[first])]
    good = (~known.called).nonzero()[:, 0]
    return torch.cat([first, good[_thinned(known.labels[good], within[good], drawn[good])]])


@dataclass(frozen=True)
class Kept:
    """Which samples stay.

    Attributes:
        stays: (n,) bool.
        rescued: (n,) bool, those of them that stay only because they would have been the last of their class.
    """

    stays: Tensor
    rescued: Tensor

    @classmethod
    def of(cls, stays: Tensor, labels: Tensor, order: Tensor) -> Kept:
        """With the sample of every emptied class that goes last.

        Args:
            stays: (n,) bool.
            labels: (n,) int64 class numbers.
            order: (n,) row numbers, those that go first coming first.
        """
        n_classes = int(labels.max()) + 1 if len(labels) else 0
        position = torch.arange(len(order))
        last = torch.full((n_classes,), -1).scatter_reduce(0, labels[order], position, "amax")
        filled = torch.zeros(n_classes, dtype=torch.bool).index_fill(0, labels[stays], True)
        rescued = torch.zeros_like(stays)
        rescued[order[last[(last >= 0) & ~filled]]] = True
        return cls(stays | rescued, rescued)


def kept_fraction(order: Tensor, labels: Tensor, keep: float, *, stratify: bool = False) -> Kept:
    """Which samples stay: the fraction that goes last, rounded up, and one of every class.

    Args:
        order: (n,) row numbers, those that go first coming first.
        labels: (n,) int64 class numbers.
        keep: In (0, 1].
        stratify: Whether the fraction is kept of every class.
    """
    stays = torch.ones(len(order), dtype=torch.bool)
    parts = [order[labels[order] == label] for label in torch.unique(labels)] if stratify else [order]
    for part in parts:
        # The last digits of keep * n are rounding: 0.55 * 100 is not to keep 56.
        stays[part[: len(part) - math.ceil(keep * len(part) - 1e-9)]] = False
    return Kept.of(stays, labels, order)


def _rounded(values: Tensor) -> Tensor:
    """In ten-thousandths of the largest: those of copies differ by rounding, and are to be ties."""
    return (values / values.abs().max().clamp_min(1e-30) * 1e4).round() if len(values) else values


def _drawn(place: Tensor, seed: int) -> Tensor:
    """A number for each sample at random, (n,) float64, all different, by its place."""
    values = torch.empty(len(place), dtype=torch.float64)
    shuffled = torch.randperm(len(place), generator=torch.Generator().manual_seed(seed))
    values[torch.argsort(place)] = shuffled.double()
    return values


def _descending(values: Tensor, ties: Tensor) -> Tensor:
    """Positions in the order of descending values, ties in that of a second one."""
    by_tie = torch.argsort(ties)
    return by_tie[torch.argsort(-values[by_tie], stable=True)]


def _thinned(labels: Tensor, within: Tensor, ties: Tensor) -> Tensor:
    """Positions in the order in which classes are thinned out, the largest `within` of a class first."""
    if not len(labels):
        return labels
    size = torch.bincount(labels).double()
    first = _descending(within, ties)
    by_class = first[torch.argsort(labels[first], stable=True)]
    start = torch.cumsum(torch.bincount(labels), 0) - torch.bincount(labels)
    gone = torch.arange(len(labels)) - start[labels[by_class]]
    left = torch.empty(len(labels), dtype=torch.float64)
    left[by_class] = (size[labels[by_class]] - gone) / size[labels[by_class]].sqrt()
    return _descending(left, ties)
