"""Interface of features: rows that can be read as tensors, in memory or from disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class Staged(ABC):
    """A matrix whose rows are read and then computed, so that reading may go ahead of the computing."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of rows and their width."""
        ...

    @abstractmethod
    def read(self, rows: slice | Tensor) -> Tensor | None:
        """What has to be read for these rows, in any thread; None where nothing has."""
        ...

    @abstractmethod
    def compute(self, rows: slice | Tensor, read: Tensor | None) -> Tensor:
        """The rows, from what was read for them."""
        ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Rows by a slice, or by numbers (b,) int64."""
        return self.compute(rows, self.read(rows))


class LinearOutput:
    """The outputs of a trained linear head on features, computed when they are read: `f_w0(X)`.

    Args:
        features: (n, d), as they enter the head: not scaled.
        weight: (k, d) weight of the head, on the device that its outputs are computed on.
        bias: (k,) bias of the head, likewise.
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
        features = self.features[rows].to(self.weight.device)
        return features.double() @ self.weight.double().T + self.bias.double()


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
        """Rows by a slice, or by numbers (b,) int64."""
        numbers = torch.arange(self.shape[0])[rows]
        above = numbers < self.first.shape[0]
        parts = self.first[numbers[above]], self.second[numbers[~above] - self.first.shape[0]]
        if not bool(above.diff().any()):
            return parts[0] if bool(above.all()) else parts[1]
        # Of each part in the order it was asked for; then in the order of all.
        together = torch.cat([part.to(torch.promote_types(parts[0].dtype, parts[1].dtype)) for part in parts])
        return together[(~above).long().argsort(stable=True).argsort()]


class Selected(Staged):
    """Some rows of a matrix, read when they are asked for.

    Args:
        whole: (n, width).
        rows: (m,) int64 row numbers of it.
    """

    def __init__(self, whole: Rows, rows: Tensor) -> None:
        self.whole = whole
        self.rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        """(m, width)."""
        return len(self.rows), self.whole.shape[1]

    def read(self, rows: slice | Tensor) -> Tensor | None:
        """What the whole matrix reads for them."""
        chosen = self.rows[rows]
        return self.whole.read(chosen) if isinstance(self.whole, Staged) else self.whole[chosen]

    def compute(self, rows: slice | Tensor, read: Tensor | None) -> Tensor:
        """What the whole matrix computes from that."""
        if isinstance(self.whole, Staged):
            return self.whole.compute(self.rows[rows], read)
        assert read is not None  # a matrix that computes nothing reads its rows
        return read
