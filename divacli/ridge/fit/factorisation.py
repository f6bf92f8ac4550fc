"""Factorisations of the Gram matrix: made once, by the first process, with every core while the others wait.

Their last digits depend on the machine and on the number of threads, and eigenvectors of equal eigenvalues on
more than that: processes that each made their own would not go on from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from divacli.parallel import all_threads, world

_WORTH_THREADS = 256
"""Order below which threads have nothing to share."""


def eigenbasis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d,), ascending, and eigenvectors (d, d), in columns, of a symmetric matrix, float64."""
    order = len(matrix)
    values, vectors = _once(lambda: torch.linalg.eigh(matrix), matrix, ((order,), (order, order)))
    return values, vectors


def cholesky(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The inverse of the factor, (d, d), its squared pivots, (d,), and it times the right sides, (d, k).

    Args:
        matrix: (d, d) float64, symmetric.
        right: (d, k) float64.

    Returns:
        With `matrix = L L'`: `L^-1`, `diag(L)^2`, `L^-1 right`; None where it is not positive definite.
    """
    order, k = right.shape
    eye = torch.eye(order, dtype=matrix.dtype, device=matrix.device)

    def factorised() -> Sequence[Tensor]:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        inverse, solved = (torch.linalg.solve_triangular(factor, b, upper=False) for b in (eye, right))
        return inverse, factor.diagonal().square(), solved, failed.to(matrix)

    inverse, pivots, solved, failed = _once(factorised, matrix, ((order, order), (order,), (order, k), ()))
    return None if bool(failed) else (inverse, pivots, solved)


def _once(
    compute: Callable[[], Sequence[Tensor]], like: Tensor, shapes: Sequence[tuple[int, ...]]
) -> Sequence[Tensor]:
    """What the first process computes, in all of them."""
    here = world()
    if here.leads:
        with all_threads() if len(like) >= _WORTH_THREADS else nullcontext():
            found = [part.contiguous() for part in compute()]
    else:
        found = [like.new_empty(shape) for shape in shapes]
    return [here.broadcast(part) for part in found]
