"""Which rows belong to one group."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def blocks_of(groups: Tensor) -> list[Tensor] | None:
    """Rows sorted by size of group: for every size m that occurs the rows (g, m) of its g groups, ascending.

    Args:
        groups: (b,) int64 group of each row.

    Returns:
        None where every group has one member.
    """
    _, number, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) == len(groups):
        return None
    by_group = number.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes
    return [
        by_group[starts[sizes == size][:, None] + torch.arange(int(size), device=groups.device)]
        for size in sizes.unique()
    ]


def packed(groups: Tensor, limit: int) -> Iterator[Tensor]:
    """Rows of whole groups (m,) int64 ascending, at most `limit` of them or one group, until all are given.

    Groups follow one another by their first row.

    Args:
        groups: (n,) int64 group of each row.
        limit: Rows at a time.
    """
    _, number, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    rows = torch.arange(len(groups))
    first = torch.full_like(sizes, len(groups)).scatter_reduce(0, number, rows, "amin")
    by_group = rows[first[number].argsort(stable=True)]
    ends = sizes[first.argsort()].cumsum(0)
    done = 0
    while done < len(groups):
        fitting, least = torch.searchsorted(ends, torch.tensor([done + limit, done]), right=True).tolist()
        stop = int(ends[max(fitting - 1, least)])
        yield by_group[done:stop].sort().values
        done = stop
