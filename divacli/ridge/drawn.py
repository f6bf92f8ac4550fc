"""A part of the validation samples that stands for all of them: evenly spaced, in whole groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.task import RidgeTask


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
