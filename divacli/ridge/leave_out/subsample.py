"""A part of the validation samples that stands for all of them: evenly spaced, in whole groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.fit.task import RidgeTask


@dataclass(frozen=True)
class Drawn:
    """Some validation samples, and the groups that they are drawn in.

    Attributes:
        rows: (m,) int64 row numbers, ascending.
        unit: (m,) int64 number in [0, u) of the group that each belongs to, alone or with others.
        groups: (u,) int64 the task's group of each of these, or its row where samples are left out alone.
        total: Number of groups that validation samples have altogether.
    """

    rows: Tensor
    unit: Tensor
    groups: Tensor
    total: int


def draw(task: RidgeTask, order: Tensor, most: int) -> Drawn:
    """Draw whole groups of samples with a positive validation mask, at most so many samples, evenly spaced.

    Args:
        task: The samples.
        order: (n,) row numbers in an order that does not depend on how they are stored; groups follow one
            another by their first samples in it.
        most: Samples, unless groups have more.
    """
    order = order[task.validation_mask[order] > 0]
    groups, number = task.numbered_groups()
    first = torch.full((len(task),), len(task)).scatter_reduce(
        0, number[order], torch.arange(len(order)), "amin"
    )
    numbers = first.argsort(stable=True)[: int((first < len(task)).sum())]
    chosen = numbers[:: max(1, -(-len(order) // most))].sort().values
    rows = torch.isin(number, chosen).nonzero()[:, 0]
    unit = torch.searchsorted(chosen, number[rows])
    of_group = torch.empty(len(task), dtype=torch.int64)
    of_group[number] = groups
    return Drawn(rows, unit, of_group[chosen], len(numbers))


def standard_errors(parts: Tensor, others: Tensor, total: int) -> Tensor:
    """Standard errors (b,) of sums over all groups, from the parts of those that are drawn.

    Args:
        parts: (u, b) the part of each drawn group in each of b sums; 0 where it has none by construction.
        others: (b,) int64 number of groups that have a part in each sum; of fewer than two follows NaN.
        total: Number of groups that the sums are over.
    """
    # Sums over draws of the deviations from the mean over the other draws.
    mean = parts.sum(dim=0) / others.clamp_min(1)
    square = (parts.square().sum(dim=0) - others * mean.square()).clamp_min(0)
    # Of a single draw nothing is known of the spread: 0 / 0.
    return (total * torch.where(others < 2, 0.0, square) / (others - 1).clamp_min(0)).sqrt()
