"""Rows gathered from several arrays on disk or in memory, in the order of a sample table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from divacli.manifest import ArrayFile


@dataclass(frozen=True)
class GatheredRows:
    """Features (n, d) whose rows lie in several blocks; only the rows that are asked for are read.

    Attributes:
        blocks: Arrays (m, d) of the same width, in files or in memory.
        block: (n,) which block holds each row.
        row: (n,) which row of its block it is.
    """

    blocks: list[ArrayFile | np.ndarray]
    block: np.ndarray
    row: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self.block), int(self.blocks[0].shape[1])

    def __getitem__(self, rows: slice | np.ndarray | Tensor) -> Tensor:
        """Rows as a tensor (b, d) on the CPU, float32 (float64 where a block is: float32 ends at 3e38)."""
        if isinstance(rows, Tensor):
            rows = rows.numpy()
        block, row = self.block[rows], self.row[rows]
        wide = any(part.dtype == np.float64 for part in self.blocks)
        found = np.empty((len(block), self.shape[1]), np.float64 if wide else np.float32)
        for number in np.unique(block):
            here = block == number
            found[here] = self.blocks[number][row[here]]
        return torch.from_numpy(found)

    def select(self, rows: np.ndarray) -> GatheredRows:
        """Some of the rows, by number (m,) or by a mask (n,), in the order given."""
        return GatheredRows(self.blocks, self.block[rows], self.row[rows])


def whole(block: ArrayFile | np.ndarray) -> GatheredRows:
    """All rows of one array, in its own order."""
    n = len(block)
    return GatheredRows([block], np.zeros(n, np.int32), np.arange(n))


def batched(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `n` rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
