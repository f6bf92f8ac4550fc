"""A fast Johnson-Lindenstrauss transform: long vectors made short, their inner products kept.

A vector x of length p is cut into blocks x_c of length q, a power of two, and becomes

    P x = sum_c E_c H D_c x_c

with the orthonormal Hadamard matrix H (q, q) and independent diagonals D_c and E_c of random signs. H spreads
every entry over all q (Ailon and Chazelle 2009), the outer signs let the blocks meet at random. For any x and
y the inner product of the two is unbiased, and its variance over the draws of the signs is exactly

    Var <P x, P y> = 1/q  sum_{c != c'} (|x_c|^2 |y_c'|^2 + <x_c, y_c> <x_c', y_c'>)
                  <= (|x|^2 |y|^2 + <x, y>^2) / q,

which is that of a Gaussian matrix less what lies within one block, where nothing is lost. By Chebyshev's
inequality the error exceeds t * sqrt(2/q) |x| |y| with a probability of at most 1/t^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 1 << 20
"""Entries of a vector that are transformed together: what is in memory beside it."""


class Sketch:
    """The transform for vectors of one length.

    Args:
        n_in: p.
        n_out: q, a power of two.
        seed: Of the signs.

    Attributes:
        n_out: Length of what it gives: q, or p where that is not more. A vector that is short enough stays.
        shortens: Whether it does not stay.
    """

    def __init__(self, n_in: int, n_out: int, seed: int) -> None:
        self.n_out = min(n_in, n_out)
        self.shortens = n_in > n_out
        self._width = n_out
        n_blocks = -(-n_in // n_out)
        generator = torch.Generator().manual_seed(seed)
        shape = (2, 0 if n_in <= n_out else n_blocks, n_out)
        self._signs = torch.randint(0, 2, shape, dtype=torch.int8, generator=generator).mul_(2).sub_(1)
        bits = n_out.bit_length() - 1 if self.shortens else 0
        self._left, self._right = _hadamard(bits - bits // 2), _hadamard(bits // 2)

    def to(self, device: torch.device) -> Sketch:
        """Move the signs to a device; returns itself."""
        self._signs = self._signs.to(device)
        self._left, self._right = self._left.to(device), self._right.to(device)
        return self

    def __call__(self, rows: Tensor) -> Tensor:
        """Shorten rows (b, p) to (b, n_out), float32 on their device."""
        b, p = rows.shape
        if p <= self._width:
            return rows
        found = rows.new_zeros(b, self._width)
        step = max(1, _AT_ONCE // self._width)
        for start in range(0, self._signs.shape[1], step):
            part = rows[:, start * self._width : (start + step) * self._width]
            inner, outer = self._signs[:, start : start + step]
            missing = inner.numel() - part.shape[1]
            blocks = torch.nn.functional.pad(part, (0, missing)).view(b, *inner.shape) * inner
            # H of length q is the Kronecker product of two smaller ones: two products of matrices.
            grid = blocks.view(*blocks.shape[:2], len(self._left), len(self._right))
            mixed = (self._left @ grid @ self._right).view_as(blocks)
            found += (mixed * outer).sum(dim=1)
        return found


def _hadamard(bits: int) -> Tensor:
    """The orthonormal, symmetric Hadamard matrix (2^bits, 2^bits) of Sylvester, float32."""
    matrix = torch.ones(1, 1)
    for _ in range(bits):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)]) / 2**0.5
    return matrix
