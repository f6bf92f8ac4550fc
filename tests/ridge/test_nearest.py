"""Neighbours within classes, beside a plain search over all pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from divacli.ridge.similar import nearest
from divacli.ridge.similar.nearest import nearest_of_classes


@pytest.mark.parametrize("block", [3, 7, 1000])
def test_equals_a_search_over_all_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator) * torch.rand(40, 1, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    rows = torch.tensor([3, 0, 39, 17])
    wanted = torch.stack([labels[rows], (labels[rows] + 1) % 4], dim=1)
    numbers, cosines = nearest_of_classes(features, labels, rows, wanted, 3)
    unit = F.normalize(features, dim=1)
    for place, row in enumerate(rows.tolist()):
        for kind in range(2):
            members = [other for other in range(40) if labels[other] == wanted[place, kind] and other != row]
            best = sorted(members, key=lambda other: -float(unit[row] @ unit[other]))[:3]
            assert numbers[place, kind].tolist() == best
            assert torch.allclose(cosines[place, kind], unit[best] @ unit[row], atol=1e-6)


def test_a_class_with_too_few_others_is_filled_up_with_nobody() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    numbers, cosines = nearest_of_classes(
        features, labels, torch.tensor([0, 1]), torch.tensor([[0, 1], [1, -1]]), 3
    )
    assert numbers.tolist() == [[[-1, -1, -1], [2, 1, -1]], [[2, -1, -1], [-1, -1, -1]]]
    assert cosines[0, 0].tolist() == [-torch.inf] * 3
