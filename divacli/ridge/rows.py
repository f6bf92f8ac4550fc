"""What the mathematics reads its samples from: anything whose rows can be sliced into tensors."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """A matrix (n, width) that is read a slice at a time; a `torch.Tensor` is one, a file can be another."""

    @property
    def shape(self) -> torch.Size | tuple[int, ...]:
        """The number of rows and their width."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Rows `start:stop` as a floating-point tensor of shape (stop - start, width)."""
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

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Head outputs (b, k) of the rows, float64: they are differences' minuend and cost little."""
        return self.features[rows].double() @ self.weight.double().T + self.bias.double()
