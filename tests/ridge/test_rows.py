"""Rows of two matrices are read as those of one above the other."""

from __future__ import annotations

import pytest
import torch

from divacli.ridge.fit.rows import LinearOutput, Stacked


@pytest.fixture
def parts():
    return torch.arange(15.0).reshape(5, 3), -torch.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(1, 4),
        slice(3, 7),
        slice(5, 9),
        slice(6, 100),
        slice(0, 9, 2),
        slice(4, 4),
        torch.tensor([0, 4, 5, 8]),
        torch.tensor([2]),
        torch.tensor([6, 7]),
        torch.tensor([], dtype=torch.int64),
    ],
    ids=str,
)
def test_rows_are_those_of_the_matrix_in_one_piece(rows, parts):
    stacked = Stacked(*parts)
    assert stacked.shape == (9, 3)
    assert torch.equal(stacked[rows], torch.cat(parts)[rows])


def test_only_the_part_that_holds_the_rows_is_read(parts):
    class Read:
        shape = (5, 3)

        def __init__(self):
            self.n = 0

        def __getitem__(self, rows):
            self.n += len(rows)
            return parts[0][rows]

    first = Read()
    stacked = Stacked(first, parts[1])
    assert len(stacked[5:9]) == 4
    assert first.n == 0
    assert len(stacked[3:6]) == 3
    assert first.n == 2


def test_stacks_of_computed_rows(parts):
    weight, bias = torch.eye(3)[:2] * 2, torch.ones(2)
    stacked = Stacked(*(LinearOutput(part, weight, bias) for part in parts))
    assert stacked.shape == (9, 2)
    assert torch.equal(stacked[3:7], LinearOutput(torch.cat(parts), weight, bias)[3:7])


def test_three_parts(parts):
    nested = Stacked(Stacked(*parts), parts[0])
    assert torch.equal(nested[2:13], torch.cat([*parts, parts[0]])[2:13])
