"""Gradients divided by the square root of a Fisher matrix, so that no layer drowns the others.

The penalty `|dw|^2` of a linear model says that every parameter moves as easily as any other. With the Fisher
matrix `F = E[g g']` of the gradients g themselves it is `dw' F dw`, which is the same as features `F^-1/2 g`:
the preconditioning of linear-quadratic fine-tuning (Achille et al. 2020). F is taken as block
diagonal, a block a parameter tensor, and within one

    diagonal     F_ii = E[g_i^2]
    kronecker    F = L x R / tr(L),  L = E[G G'], R = E[G' G]

with the gradient G (o, i) of a weight, its first dimension against all others (Gupta et al. 2018). A vector
of parameters, and a side of more than 8,192, has a diagonal in either form. To every matrix a multiple of its
mean diagonal is added.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from divacli.backbones.linearised.gradients import Gradients
from divacli.errors import ModelError

REFERENCE_IMAGES = 512
"""Images that a Fisher matrix is estimated on, at the most."""

DAMPING = 0.1
"""Share of the mean diagonal that is added to the diagonal."""

_LARGEST = 8192


class Preconditioner:
    """Multiplies gradients by the inverse square root of a Fisher matrix.

    Args:
        kronecker: Its form; else diagonal.
        batches: Gradients of the reference images; those that are not finite are left out.

    Raises:
        ModelError: None is finite.
    """

    def __init__(self, batches: Iterable[Gradients], *, kronecker: bool) -> None:
        sums: dict[str, list[Tensor]] = {}
        n = 0
        for gradients in batches:
            finite = _finite(gradients)
            n += int(finite.sum())
            for name, gradient in gradients.items():
                moments = sums.setdefault(name, _no_moments(gradient, kronecker=kronecker))
                _add_moments(moments, gradient[finite])
        if not n:
            raise ModelError(
                "none of the images that the Fisher matrix is estimated on has finite gradients",
                expected="finite numbers",
                hint="name other images with --reference, or leave --precondition out",
            )
        self._factors = {
            name: _factors([total.double() / n for total in totals]) for name, totals in sums.items()
        }

    def to(self, device: torch.device) -> None:
        """Move it to a device."""
        self._factors = {
            name: [factor.to(device) for factor in factors] for name, factors in self._factors.items()
        }

    def __call__(self, gradients: Gradients) -> Gradients:
        """Gradients (b, *shape) of the same parameters, preconditioned."""
        return {name: _applied(self._factors[name], gradient) for name, gradient in gradients.items()}


def _finite(gradients: Gradients) -> Tensor:
    """Which images (b,) have finite gradients."""
    every = [one.reshape(len(one), -1).isfinite().all(dim=1) for one in gradients.values()]
    return torch.stack(every).all(dim=0)


def _no_moments(gradient: Tensor, *, kronecker: bool) -> list[Tensor]:
    """Zeros in place of the sums for a parameter with gradients (b, *shape)."""
    if not kronecker or gradient.ndim < 3:
        return [torch.zeros_like(gradient[0])]
    sides = gradient.shape[1], gradient[0, 0].numel()
    return [gradient.new_zeros((side,) if side > _LARGEST else (side, side)) for side in sides]


def _add_moments(sums: list[Tensor], gradient: Tensor) -> None:
    """Add squares (*shape), or the products of both sides or their diagonals, of some images."""
    if len(sums) == 1:
        sums[0] += gradient.square().sum(dim=0)
        return
    matrix = gradient.flatten(2)
    for total, side in zip(sums, (matrix, matrix.mT), strict=True):
        if total.ndim == 1:
            total += side.square().sum(dim=(0, 2))
        else:
            total.addbmm_(side, side.mT)


def _factors(moments: list[Tensor]) -> list[Tensor]:
    """What gradients are multiplied by: one tensor like them, or a matrix (or diagonal) for either side."""
    if len(moments) == 1:
        return [_inverse_root(moments[0]).float()]
    left, right = moments
    trace = left.sum() if left.ndim == 1 else left.trace()
    return [(_side_root(left) * trace.sqrt()).float(), _side_root(right).float()]


def _side_root(moment: Tensor) -> Tensor:
    if moment.ndim == 1:
        return _inverse_root(moment)
    values, vectors = torch.linalg.eigh(moment)
    return (vectors * _inverse_root(values.clamp_min(0))) @ vectors.T


def _inverse_root(values: Tensor) -> Tensor:
    """One over the roots of damped values; 0 where all are zero: nothing depends on these parameters."""
    damped = values + DAMPING * values.mean()
    return torch.where(damped == 0, 0.0, damped.rsqrt())


def _applied(factors: list[Tensor], gradient: Tensor) -> Tensor:
    if len(factors) == 1:
        return gradient * factors[0]
    left, right = factors
    matrix = gradient.flatten(2)
    matrix = left @ matrix if left.ndim == 2 else left[:, None] * matrix
    matrix = matrix @ right if right.ndim == 2 else matrix * right
    return matrix.view_as(gradient)
