"""The eigenbasis of the weighted Gram matrix, from which the fit at any ridge is read off.

With an unpenalised intercept the normal equations decouple once the features are centred at their
weighted mean: `A = diag(Z~'DZ~ + lambda I, sum(alpha))` in the coordinates `[z - mean, 1]`. The penalty does
not see the shift, so every formula of the method holds in these coordinates with the mean held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.task import RidgeTask


@dataclass(frozen=True)
class RidgeFit:
    """The ridge solution at one value of lambda, in the coordinates where `A` is the identity.

    `phi = project(z)` is the whitened feature row: `phi_i . phi_j = z_i A^-1 z_j'`. So the leverage is
    `|phi_i|^2`, the prediction `phi_i . coef`, and no later product is amplified by a small eigenvalue.

    Attributes:
        mean: (d,) weighted feature mean, zeros without an intercept.
        basis: (d, r) orthonormal eigenvectors of the Gram matrix.
        scale: (r,) one over the square roots of `eigenvalue + ridge`.
        bias_scale: `1 / sqrt(sum alpha)`, the whitened intercept column, or None without an intercept.
        coef: (r, k), or (r + 1, k) with an intercept: `A^-1 Z'DT` in whitened coordinates.
        ridge: lambda.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    bias_scale: float | None
    coef: Tensor
    ridge: float

    def to(self, dtype: torch.dtype) -> RidgeFit:
        """The same fit with its matrices in another dtype."""
        matrices = {name: getattr(self, name).to(dtype) for name in ("mean", "basis", "scale", "coef")}
        return replace(self, **matrices)

    def project(self, features: Tensor) -> Tensor:
        """Whitened features (b, r) or (b, r + 1) of scaled features (b, d)."""
        return self.whiten((features - self.mean) @ self.basis)

    def whiten(self, rotated: Tensor) -> Tensor:
        """Whitened features from coordinates (b, r) in the eigenbasis (`Spectrum.rotate`)."""
        whitened = rotated * self.scale
        if self.bias_scale is None:
            return whitened
        return torch.cat([whitened, whitened.new_full((len(whitened), 1), self.bias_scale)], dim=1)


@dataclass(frozen=True)
class Spectrum:
    """The weighted, centred Gram matrix `Z~'DZ~ = Q diag(eigenvalues) Q'` of a task, float64.

    Attributes:
        mean: (d,) weighted feature mean, zeros without an intercept.
        basis: (d, r) orthonormal columns Q.
        eigenvalues: (r,) ascending, >= 0.
        cross: (r, k) `Q' Z~'D T`.
        target_mean: (k,) weighted mean of the targets, or None without an intercept.
        total_weight: `sum(alpha)`.
    """

    mean: Tensor
    basis: Tensor
    eigenvalues: Tensor
    cross: Tensor
    target_mean: Tensor | None
    total_weight: float

    def rotate(self, features: Tensor) -> Tensor:
        """Coordinates (b, r) of scaled features (b, d) in the eigenbasis, in the features' dtype."""
        return (features - self.mean.to(features)) @ self.basis.to(features)

    def fit(self, ridge: float) -> RidgeFit:
        """The ridge solution at `ridge`, float64, on the task's device.

        Raises:
            SolveError: `ridge` is negative or not finite, or too small for features that are not
                linearly independent, so that the solution is not unique.
        """
        damped = self.damped(torch.tensor([ridge], dtype=torch.float64, device=self.eigenvalues.device))[0]
        scale = damped.rsqrt()
        coef = scale[:, None] * self.cross
        bias_scale = None
        if self.target_mean is not None:
            bias_scale = self.total_weight**-0.5
            coef = torch.cat([coef, self.target_mean[None] / bias_scale])
        return RidgeFit(self.mean, self.basis, scale, bias_scale, coef, ridge)

    def damped(self, ridges: Tensor) -> Tensor:
        """`eigenvalues + ridge` (R, r) for ridges (R,), float64.

        Raises:
            SolveError: A ridge is negative, not finite, or so small that the sum is singular.
        """
        damped = self.eigenvalues + ridges[:, None]
        # A Gram matrix summed over many samples is off by more than its order's worth of rounding.
        relative = torch.finfo(torch.float64).eps * max(len(self.eigenvalues), 256)
        bad = ~torch.isfinite(ridges) | (ridges < 0)
        largest = 0.0
        if len(self.eigenvalues):
            largest = float(self.eigenvalues[-1])
            bad |= damped[:, 0] <= relative * damped[:, -1]
        if bool(bad.any()):
            value = float(ridges[bad][0])
            raise SolveError(
                f"ridge {value:g} leaves the features' Gram matrix singular or is not a number >= 0",
                expected=f"a finite ridge well above {relative * largest:.2g} on these features",
                hint="use --ridge auto, or a larger number",
            )
        return damped


def decompose(task: RidgeTask) -> Spectrum:
    """Sum the moments of a task in one pass and decompose its Gram matrix: O(n d^2 + d^3).

    Sums are float64 whatever the features' dtype, and are taken around the weighted mean of the first batch
    that has one, so that features far from the origin lose no digits when they are centred.

    Raises:
        SolveError: All weights are zero, or a feature is not finite.
    """
    d, k = task.n_features, task.n_classes
    gram, cross, first, target_sum, shift = (
        torch.zeros(*size, dtype=torch.float64, device=task.device)
        for size in ((d, d), (d, k), (d,), (k,), (d,))
    )
    total = 0.0
    for batch in task.batches(torch.float64):
        mass = float(batch.weights.sum())
        if task.intercept and total == 0 and mass > 0:
            shift = batch.weights @ batch.features / mass
        centred = batch.features - shift
        weighted = centred * batch.weights[:, None]
        gram += weighted.T @ centred
        cross += weighted.T @ batch.targets
        first += weighted.sum(dim=0)
        target_sum += batch.weights @ batch.targets
        total += mass
    if total <= 0:
        raise SolveError("every sample weight is zero", expected="at least one sample with a positive weight")
    if not bool(torch.isfinite(gram).all() & torch.isfinite(cross).all()):
        raise SolveError(
            "the features (or the head's outputs) hold NaN or infinite values",
            expected="finite numbers",
            hint="leave those samples out",
        )
    target_mean = None
    if task.intercept:
        gram -= torch.outer(first, first) / total
        cross -= torch.outer(first, target_sum) / total
        target_mean = target_sum / total
        shift = shift + first / total
    eigenvalues, basis = torch.linalg.eigh(gram)
    return Spectrum(shift, basis, eigenvalues.clamp_min(0), basis.T @ cross, target_mean, total)
