"""The samples of a class that a sample looks most like: what a label is judged by."""

from __future__ import annotations

import torch
from torch import Tensor

from divacli.ridge import Rows, Scaling

_BLOCK = 8192


def nearest_of_classes(
    features: Rows, labels: Tensor, rows: Tensor, wanted: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Find for some samples the most similar others of given classes, by the cosine of their features.

    One pass over all rows, a block at a time.

    Args:
        features: (n, d), any scale.
        labels: (n,) int64 class numbers.
        rows: (m,) int64, the samples that are asked about.
        wanted: (m, c) int64, the classes whose members are sought for each; -1 where none is.
        count: Members sought of a class.

    Returns:
        Their rows (m, c, count) int64, the most similar first, -1 where a class has fewer; and the cosines
        (m, c, count) float32, -inf there.
    """
    unit = Scaling("unit")
    asked = unit(features[rows]).float()
    number = torch.full((*wanted.shape, count), -1)
    cosine = torch.full((*wanted.shape, count), -torch.inf)
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        similar = asked @ unit(features[block]).float().T
        here = torch.arange(start, start + similar.shape[1])
        similar[rows[:, None] == here] = -torch.inf
        member = labels[block] == wanted[:, :, None]
        candidates = torch.cat([cosine, similar[:, None, :].where(member, -torch.inf)], dim=2)
        numbers = torch.cat([number, here.expand(member.shape)], dim=2)
        cosine, place = candidates.topk(count, dim=2)
        number = numbers.gather(2, place)
    return number.where(cosine.isfinite(), -1), cosine
