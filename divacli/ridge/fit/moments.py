"""The sums over samples that a ridge solution is made of; sets of samples join and part by adding them up.

The moments of a whole set minus those of a fold are the moments of the other folds, so K fits that each
leave a fold out take one pass over the samples and K factorisations.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.ridge.fit.factorisation import cholesky, eigenbasis
from divacli.ridge.fit.passes import Sums, walk
from divacli.ridge.fit.products import add_gram, gram_dtype, mirrored
from divacli.ridge.fit.scaling import require_size
from divacli.ridge.fit.spectrum import RidgeFit, Spectrum, rounding, unusable_ridge
from divacli.ridge.fit.task import Batch, RidgeTask

_SUMS = ("gram", "cross", "first", "target_sum", "total_weight")


@dataclass(frozen=True)
class Moments:
    """Weighted sums over samples, features taken from a fixed point; float64 on the task's device.

    Attributes:
        gram: (d, d) `sum alpha (z - shift)' (z - shift)`.
        cross: (d, k) `sum alpha (z - shift)' t`.
        first: (d,) `sum alpha (z - shift)`.
        target_sum: (k,) `sum alpha t`.
        total_weight: `sum alpha`.
        shift: (d,) the point; zeros without an intercept.
        intercept: Whether an unpenalised bias is fitted.
    """

    gram: Tensor
    cross: Tensor
    first: Tensor
    target_sum: Tensor
    total_weight: float
    shift: Tensor
    intercept: bool

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of samples.

        Raises:
            ValueError: They are taken from different points.
        """
        return self._combined(other, operator.add)

    def __sub__(self, other: Moments) -> Moments:
        """Moments of the samples that are here and not in `other`, which is a part of this set.

        Raises:
            ValueError: They are taken from different points.
        """
        rest = self._combined(other, operator.sub)
        # What rounding leaves of nothing must not pass for a tiny weight.
        nothing = rest.total_weight <= 1e-12 * self.total_weight
        return replace(rest, total_weight=0.0) if nothing else rest

    def times(self, factor: float) -> Moments:
        """Moments of the same samples with every weight multiplied by a factor >= 0."""
        scaled = {name: getattr(self, name) * factor for name in _SUMS}
        return replace(self, **scaled)

    def decompose(self) -> Spectrum:
        """The eigenbasis of the centred Gram matrix, from which the fit at any ridge is read off: O(d^3).

        Raises:
            SolveError: All weights are zero, or a feature is not finite.
        """
        gram, cross, mean, target_mean = self._centred()
        eigenvalues, basis = eigenbasis(gram)
        # Equal features differ from their mean by rounding; no more than that is no variation.
        rounding = 64 * torch.finfo(torch.float64).eps * float(mean.norm())
        if len(gram) and float(eigenvalues[-1]) <= self.total_weight * rounding**2:
            eigenvalues = torch.zeros_like(eigenvalues)
        return Spectrum(
            mean, basis, eigenvalues.clamp_min(0), basis.T @ cross, target_mean, self.total_weight
        )

    def fit(self, ridge: float) -> RidgeFit:
        """The solution at one ridge by a Cholesky factorisation, a tenth of the work of `decompose`.

        With `A = L L'` the whitened features are `z~ L'^-1`: the same inner products as in the eigenbasis, so
        the same predictions, leverages and derivatives.

        Raises:
            SolveError: As `decompose` and `Spectrum.fit`.
        """
        gram, cross, mean, target_mean = self._centred()
        order = len(gram)
        # A bound of the largest eigenvalue, and below the squared pivots, one of the smallest.
        largest = float(torch.linalg.matrix_norm(gram))
        gram.diagonal().add_(ridge)
        found = cholesky(gram, cross) if math.isfinite(ridge) and ridge >= 0 else None
        if found is None or not bool((found[1] > rounding(order) * (largest + ridge)).all()):
            raise unusable_ridge(ridge, largest, order)
        inverse, _, coef = found
        return RidgeFit.of(
            mean, inverse.T, torch.ones_like(mean), coef, target_mean, self.total_weight, ridge
        )

    def _combined(self, other: Moments, operation: Callable[[Any, Any], Any]) -> Moments:
        if self.intercept != other.intercept or not torch.equal(self.shift, other.shift):
            raise ValueError("moments taken from different points: sum both with one `shift`")
        sums = {name: operation(getattr(self, name), getattr(other, name)) for name in _SUMS}
        return replace(self, **sums)

    def _centred(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Gram matrix and cross moments around the weighted mean, that mean, and that of the targets."""
        if self.total_weight <= 0:
            raise SolveError(
                "every sample weight is zero",
                expected="at least one sample with a positive weight",
                hint="correct the weights, or keep more of the samples that have one",
            )
        sums = (self.gram, self.cross, self.first, self.target_sum)
        if not all(bool(torch.isfinite(part).all()) for part in sums):
            raise SolveError(
                "the features as scaled (or the head's outputs) hold NaN or infinite values",
                expected="finite numbers",
                hint=Advice("leave those samples out; for numbers beyond 1e38 use {scaling} unit"),
            )
        if not self.intercept:
            return self.gram.clone(), self.cross, self.shift, None
        mean, target_mean = self.first / self.total_weight, self.target_sum / self.total_weight
        gram = self.gram - torch.outer(self.first, mean)
        cross = self.cross - torch.outer(self.first, target_mean)
        return gram, cross, self.shift + mean, target_mean


def moments(task: RidgeTask, shift: Tensor | None = None) -> Moments:
    """Sum the moments of a task in one pass over the samples: O(n d^2), samples of weight zero O(d).

    Sums are float64 whatever the features' dtype. Features far from the origin lose no digits when they are
    centred, as long as they are not far from `shift`.

    Args:
        task: The samples.
        shift: (d,) float64, the point that features are taken from, to add these moments to others of that
            point; by default the weighted mean of the first batch that has one.

    Raises:
        ValueError: A point other than zero without an intercept.
        SolveError: Features too large or too small for the task's dtype.
    """
    d, k = task.n_features, task.n_classes
    if shift is not None and not task.intercept and bool(shift.any()):
        raise ValueError("without an intercept, features are taken from zero: expected no shift")
    dtype = torch.float64 if task.dtype == torch.float64 else gram_dtype(task.device)
    # A point that the features' dtype has: it is subtracted there.
    point = _first_mean(task).to(dtype).double() if shift is None else shift

    def zeros() -> Sums:
        return [
            torch.zeros(*size, dtype=torch.float64, device=task.device)
            for size in ((d, d), (d, k), (d,), (k,), (1,))
        ]

    def visit(batch: Batch, sums: Sums) -> None:
        gram, cross, first, target_sum, total = sums
        # Scaled in the task's dtype, as every other pass sees them.
        present = batch.features - point.to(dtype)  # in the wider of the two dtypes
        # Looked at on the CPU, which has not to wait for the device to do so.
        own = task.weights[batch.rows]
        targets, weights = batch.targets.to(dtype), own.to(present)
        # Over absent samples too, so that a feature of theirs that is not finite is found.
        first += (weights @ present).double()
        target_sum += (weights @ targets).double()
        total += weights.double().sum()
        if not bool((own > 0).all()):
            here = (own > 0).nonzero()[:, 0]
            own, here = own[here], here.to(task.device)
            present, targets, weights = present[here], targets[here], weights[here]
        weighted = present if bool((own == 1).all()) else present * weights[:, None]
        add_gram(gram, weighted, present)
        cross += weighted.T @ targets

    gram, cross, first, target_sum, total = walk(task, zeros, visit)
    if d and float(total) > 0:
        size = max(float(gram.diagonal().max() / total) ** 0.5, float(point.abs().max()))
        require_size(size, task.dtype)
    return Moments(mirrored(gram), cross, first, target_sum, float(total), point, task.intercept)


def _first_mean(task: RidgeTask) -> Tensor:
    """(d,) float64 weighted mean of the first batch that has one; zeros without an intercept."""
    if task.intercept:
        for rows in task.slices():
            if bool((task.weights[rows] > 0).any()):
                batch = task.batch(rows, torch.float64)
                return batch.weights @ batch.features / batch.weights.sum()
    return torch.zeros(task.n_features, dtype=torch.float64, device=task.device)


def decompose(task: RidgeTask) -> Spectrum:
    """Sum the moments of a task in one pass and decompose its Gram matrix: O(n d^2 + d^3).

    Raises:
        SolveError: All weights are zero, or a feature is not finite.
    """
    return moments(task).decompose()
