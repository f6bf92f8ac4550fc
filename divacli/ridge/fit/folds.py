"""Random parts of a set of samples: balanced within every class, groups kept whole."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor


def split_in_folds(
    labels: Tensor, order: Tensor, seed: int, n_folds: int, groups: Tensor | None = None
) -> Tensor:
    """A random fold for every sample, (n,) int64 in [0, n_folds), balanced within every class.

    A group is in one fold as a whole, and classes are then balanced as well as the groups allow: the largest
    group first, each goes where its classes are scarcest.

    Args:
        labels: (n,) int64 class numbers.
        order: (n,) row numbers in the order that they are drawn in.
        seed: Of the random draw.
        n_folds: How many parts.
        groups: (n,) int64 group of each sample; by default each is one of its own.
    """
    order = order[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    order = order[torch.argsort(labels[order], stable=True)]
    if groups is None:
        fold = torch.empty(len(labels), dtype=torch.int64)
        fold[order] = torch.arange(len(labels)) % n_folds
        return fold
    members: dict[int, list[int]] = {}
    for row, group in zip(order.tolist(), groups[order].tolist(), strict=True):
        members.setdefault(group, []).append(row)
    seen = [Counter[int]() for _ in range(n_folds)]
    sizes = [0] * n_folds
    classes, chosen = labels.tolist(), [0] * len(labels)
    for rows in sorted(members.values(), key=len, reverse=True):

        def crowded(fold: int, rows: list[int] = rows) -> tuple[int, int]:
            return sum(seen[fold][classes[row]] for row in rows), sizes[fold]

        fold_of_group = min(range(n_folds), key=crowded)
        sizes[fold_of_group] += len(rows)
        for row in rows:
            seen[fold_of_group][classes[row]] += 1
            chosen[row] = fold_of_group
    return torch.tensor(chosen)
