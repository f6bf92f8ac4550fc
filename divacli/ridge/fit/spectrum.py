"""The eigenbasis of the weighted Gram matrix, from which the fit at any ridge is read off.

With an unpenalised intercept the normal equations decouple once the features are centred at their
weighted mean: `A = diag(Z~'DZ~ + lambda I, sum(alpha))` in the coordinates `[z - mean, 1]`. The penalty does
not see the shift, so every formula of the method holds in these coordinates with the mean held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError


@dataclass(frozen=True)
class RidgeFit:
    """The ridge solution at one value of lambda, in the coordinates where `A` is the identity.

    `phi = project(z)` is the whitened feature row: `phi_i . phi_j = z_i A^-1 z_j'`. So the leverage is
    `|phi_i|^2`, the prediction `phi_i . coef`, and no later product is amplified by a small eigenvalue.

    Attributes:
        mean: (d,) weighted feature mean, zeros without an intercept.
        basis: (d, r) columns in which `A` is diagonal: orthonormal eigenvectors of the Gram matrix, or
            `L'^-1` with the Cholesky factor of `A`, which are not orthonormal; None where the features are
            coordinates in that basis already, taken from the mean.
        scale: (r,) one over the square roots of the diagonal: of `eigenvalue + ridge`, or ones.
        bias_scale: `1 / sqrt(sum alpha)`, the whitened intercept column, or None without an intercept.
        coef: (r, k), or (r + 1, k) with an intercept: `A^-1 Z'DT` in whitened coordinates.
        ridge: lambda.
    """

    mean: Tensor
    basis: Tensor | None
    scale: Tensor
    bias_scale: float | None
    coef: Tensor
    ridge: float

    @classmethod
    def of(
        cls,
        mean: Tensor,
        basis: Tensor | None,
        scale: Tensor,
        coef: Tensor,
        target_mean: Tensor | None,
        total_weight: float,
        ridge: float,
    ) -> RidgeFit:
        """The fit whose features have the coefficients `coef` (r, k), with the intercept where there is one.

        Args:
            mean: As the attribute.
            basis: As the attribute.
            scale: As the attribute.
            coef: (r, k) without the intercept's row.
            target_mean: (k,) weighted mean of the targets, or None without an intercept.
            total_weight: `sum(alpha)`.
            ridge: lambda.
        """
        if target_mean is None:
            return cls(mean, basis, scale, None, coef, ridge)
        bias_scale = total_weight**-0.5
        return cls(mean, basis, scale, bias_scale, torch.cat([coef, target_mean[None] / bias_scale]), ridge)

    def to(self, dtype: torch.dtype) -> RidgeFit:
        """The same fit with its matrices in another dtype."""
        matrices = {name: getattr(self, name).to(dtype) for name in ("mean", "scale", "coef")}
        return replace(self, **matrices, basis=None if self.basis is None else self.basis.to(dtype))

    def project(self, features: Tensor) -> Tensor:
        """Whitened features (b, r) or (b, r + 1) of scaled features (b, d)."""
        return self.whiten(features if self.basis is None else (features - self.mean) @ self.basis)

    def whiten(self, rotated: Tensor) -> Tensor:
        """Whitened features from coordinates (b, r) in the basis (`Spectrum.rotate`)."""
        if self.bias_scale is None:
            return rotated * self.scale
        whitened = rotated.new_empty(len(rotated), len(self.scale) + 1)
        torch.mul(rotated, self.scale, out=whitened[:, :-1])
        whitened[:, -1] = self.bias_scale
        return whitened


@dataclass(frozen=True)
class Spectrum:
    """The weighted, centred Gram matrix `Z~'DZ~ = Q diag(eigenvalues) Q'` of a task, float64.

    Attributes:
        mean: (d,) weighted feature mean, zeros without an intercept.
        basis: (d, r) orthonormal columns Q, or None where the features are coordinates in it already, taken
            from the mean (`in_eigenbasis`).
        eigenvalues: (r,) ascending, >= 0.
        cross: (r, k) `Q' Z~'D T`.
        target_mean: (k,) weighted mean of the targets, or None without an intercept.
        total_weight: `sum(alpha)`.
    """

    mean: Tensor
    basis: Tensor | None
    eigenvalues: Tensor
    cross: Tensor
    target_mean: Tensor | None
    total_weight: float

    def rotate(self, features: Tensor) -> Tensor:
        """Coordinates (b, r) of scaled features (b, d) in the eigenbasis, in the features' dtype."""
        if self.basis is None:
            return features
        return (features - self.mean.to(features)) @ self.basis.to(features)

    def leading_share(self, directions: int) -> float:
        """Share of the features' variance that lies in so many leading directions, in [0, 1]."""
        total = float(self.eigenvalues.sum())
        return float(self.eigenvalues[-directions:].sum()) / total if total > 0 and directions > 0 else 0.0

    def fit(self, ridge: float) -> RidgeFit:
        """The ridge solution at `ridge`, float64, on the task's device.

        Raises:
            SolveError: `ridge` is negative or not finite, or too small for features that are not
                linearly independent, so that the solution is not unique.
        """
        damped = self.damped(torch.tensor([ridge], dtype=torch.float64, device=self.eigenvalues.device))[0]
        scale = damped.rsqrt()
        return RidgeFit.of(
            self.mean,
            self.basis,
            scale,
            scale[:, None] * self.cross,
            self.target_mean,
            self.total_weight,
            ridge,
        )

    def damped(self, ridges: Tensor) -> Tensor:
        """`eigenvalues + ridge` (R, r) for ridges (R,), float64.

        Raises:
            SolveError: A ridge is negative, not finite, or so small that the sum is singular.
        """
        damped = self.eigenvalues + ridges[:, None]
        order = len(self.eigenvalues)
        bad = ~torch.isfinite(ridges) | (ridges < 0)
        largest = 0.0
        if order:
            largest = float(self.eigenvalues[-1])
            bad |= damped[:, 0] <= rounding(order) * damped[:, -1]
        if bool(bad.any()):
            raise unusable_ridge(float(ridges[bad][0]), largest, order)
        return damped


def rounding(order: int) -> float:
    """Relative size of what rounding leaves of a zero eigenvalue of a Gram matrix, float64."""
    # A Gram matrix summed over many samples is off by more than its order's worth of rounding.
    return torch.finfo(torch.float64).eps * max(order, 256)


def unusable_ridge(ridge: float, largest: float, order: int) -> SolveError:
    """The refusal of a ridge that is negative, not finite, or too small for a unique solution.

    Args:
        ridge: lambda.
        largest: The Gram matrix's largest eigenvalue, or a bound of it.
        order: Its order.
    """
    return SolveError(
        f"ridge {ridge:g} leaves the features' Gram matrix singular or is not a number >= 0",
        expected=f"a finite ridge well above {rounding(order) * largest:.2g} on these features",
        hint=Advice("use {ridge} auto, or a larger number"),
    )
