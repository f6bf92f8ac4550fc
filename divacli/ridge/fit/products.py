"""Sums of products of rows, `X' D X`: half of a symmetric matrix is computed, and it is summed in float64."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_BLOCK, _CUDA_BLOCK = 160, 1024
"""Columns of a block, at the least, and on a CUDA device: smaller ones are not multiplied at full speed."""

_MOST_BLOCKS = 8
"""Blocks of columns: on and above the diagonal there are 9/16 of a whole product's operations."""

_FAST_AT_FLOAT64 = ((8, 0), (9, 0), (10, 0))
"""Compute capabilities of GPUs with matrix units for float64: A100, H100 and H200, B200."""

RUN_ROWS = 512
"""Rows that a product in float32 sums before it is added to the float64 sum, where float64 is slow."""


def gram_dtype(device: torch.device) -> torch.dtype:
    """The dtype that Gram matrices are multiplied in: float64 unless the device is slow at it.

    A processor, and a data-centre GPU with matrix units for float64, take at most
    twice as long as for float32. Other GPUs take up to 64 times as long; there float32 products are summed in
    float64.
    """
    fast = device.type != "cuda" or torch.cuda.get_device_capability(device) in _FAST_AT_FLOAT64
    return torch.float64 if fast else torch.float32


def add_gram(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left' right`, known to be symmetric, to the blocks of `total` on and above its diagonal.

    With float32 rows, products are summed in float32 over `RUN_ROWS` rows at a time, and their sums in
    float64: the error of an entry stays below `1e-6 sum_i |left_i right_i|`, however many rows there are.

    Args:
        total: (d, d) float64; what is below the diagonal is completed by `mirrored`.
        left: (b, d) rows.
        right: (b, d) rows of the same dtype.
    """
    if total.is_cuda and gram_dtype(total.device) == torch.float64:  # pragma: no cover
        # Short runs do not fill such a device, and it is as fast at float64.
        left, right = left.double(), right.double()
    exact = left.dtype == total.dtype
    for rows in (slice(None),) if exact else _runs(len(left)):
        for start, stop in column_blocks(len(total), total.device):
            target = total[start:stop, start:]
            if exact:
                target.addmm_(left[rows, start:stop].T, right[rows, start:])
            else:
                target += left[rows, start:stop].T @ right[rows, start:]


def mirrored(total: Tensor) -> Tensor:
    """The whole symmetric matrix, of which the upper blocks are given; in place."""
    for start, stop in column_blocks(len(total), total.device):
        total[stop:, start:stop] = total[start:stop, stop:].T
    return total


def quadratic(rows: Tensor, matrix: Tensor) -> Tensor:
    """`x M x'` for every row x, (b,), with a symmetric M (d, d) of the rows' dtype."""
    found = rows.new_zeros(len(rows))
    for start, stop in column_blocks(len(matrix), matrix.device):
        part = rows[:, start:stop]
        product = part @ matrix[start:stop, start:stop]
        if stop < len(matrix):
            product += 2 * (rows[:, stop:] @ matrix[stop:, start:stop])
        found += (product * part).sum(dim=1)
    return found


def column_blocks(d: int, device: torch.device) -> list[tuple[int, int]]:
    """First columns and ends of the blocks that symmetric products (d, d) are computed in."""
    least = _CUDA_BLOCK if device.type == "cuda" else _BLOCK
    count = min(max(d // least, 1), _MOST_BLOCKS)
    return list(itertools.pairwise(index * d // count for index in range(count + 1)))


def _runs(n: int) -> list[slice]:
    return [slice(start, start + RUN_ROWS) for start in range(0, n, RUN_ROWS)]
