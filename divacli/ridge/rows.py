"""What the mathematics reads its samples from: anything whose rows can be read as tensors."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """A matrix (n, width) that is read a few rows at a time: a `torch.Tensor`, or what reads a file."""

    @property
    def shape(self) -> torch.Size | tuple[int, ...]:
        """The number of rows and their width."""
        ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Rows `start:stop`, or those of an int64 tensor (b,), as a floating-point tensor (b, width)."""
        ...


class LinearOutput:
    """The outputs of a trained linear head on features, computed when they are read: `f_w0(X)`.

    Args:
        features: (n, d), as they enter the head: not scaled.
        weight: (k, d) weight of the head.
        bias: (k,) bias of the head.
    """

    def __init__(self, features: Rows, weight: Tensor, bias: Tensor) -> None:
        self.features = features
        self.weight = weight
        self.bias = bias

    @property
    def shape(self) -> tuple[int, int]:
        """(n, k)."""
        return self.features.shape[0], self.weight.shape[0]

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Head outputs (b, k) of the rows, float64: they are differences' minuend and cost little."""
        return self.features[rows].double() @ self.weight.double().T + self.bias.double()


class Stacked:
    """The rows of one matrix above those of another, read when they are asked for.

    Args:
        first: (n, width).
        second: (m, width).
    """

    def __init__(self, first: Rows, second: Rows) -> None:
        self.first = first
        self.second = second

    @property
    def shape(self) -> tuple[int, int]:
        """(n + m, width)."""
        return self.first.shape[0] + self.second.shape[0], self.first.shape[1]

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Rows by a slice, or by ascending numbers (b,) int64."""
        numbers = torch.arange(self.shape[0])[rows]
        above = self.first.shape[0]
        parts = [self.first[numbers[numbers < above]], self.second[numbers[numbers >= above] - above]]
        return torch.cat([part for part in parts if len(part)] or parts[:1])
