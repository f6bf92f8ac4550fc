"""Validation losses: a value and a gradient for each sample's prediction.

The derivative of the leave-one-out loss needs nothing else of a loss than the row `dl/df`, its standard
error the second derivatives as well, so any loss that is twice differentiable can stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hessian:
    """Second derivatives of losses by their own predictions, `diag(diagonal) + sum_a f_a u_a u_a'`.

    Attributes:
        diagonal: (b, k).
        outer: Pairs of factors `f` (b,) and directions `u` (b, k).
    """

    diagonal: Tensor
    outer: tuple[tuple[Tensor, Tensor], ...] = ()

    def weighted(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """`sum_l weights_il H_l x_i`, (m, k).

        Args:
            weights: (m, b).
            vectors: (m, k) rows `x`.
        """
        found = (weights @ self.diagonal) * vectors
        for factors, directions in self.outer:
            found += (weights * factors * (vectors @ directions.T)) @ directions
        return found


class Loss(Protocol):
    """A loss of predictions (b, k) against one-hot labels (b, k)."""

    def value(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Each sample's loss, (b,)."""
        ...

    def gradient(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Each sample's `dl/df`, (b, k)."""
        ...

    def hessian(self, predictions: Tensor, targets: Tensor) -> Hessian:
        """Each sample's second derivatives by its prediction."""
        ...


@dataclass(frozen=True)
class SquaredLoss:
    """`l(f, y) = |f - y|^2`, summed over the classes."""

    def value(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Each sample's loss, (b,)."""
        return (predictions - targets).square().sum(dim=1)

    def gradient(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """`2 (f - y)`, (b, k)."""
        return 2 * (predictions - targets)

    def hessian(self, predictions: Tensor, targets: Tensor) -> Hessian:
        """Twice the identity; targets play no part."""
        return Hessian(torch.full_like(predictions, 2))

    def curvature(self, predictions: Tensor) -> Tensor:
        """The second derivative in every direction: 2, (b,)."""
        return torch.full_like(predictions[:, 0], 2)


@dataclass(frozen=True)
class CrossEntropyLoss:
    """`l(f, y) = -sum_k y_k log softmax(t f)_k`, in nats.

    Ridge predictions live between 0 and 1, so without a scale `t` their softmax is nearly uniform.

    Attributes:
        inverse_temperature: The scale `t` > 0; `fit_inverse_temperature` calibrates it.
    """

    inverse_temperature: float = 1.0

    def value(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Each sample's loss, (b,)."""
        return -(targets * torch.log_softmax(self.inverse_temperature * predictions, dim=1)).sum(dim=1)

    def gradient(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """`t (softmax(t f) sum_k y_k - y)`, (b, k)."""
        probabilities = torch.softmax(self.inverse_temperature * predictions, dim=1)
        return self.inverse_temperature * (probabilities * targets.sum(dim=1, keepdim=True) - targets)

    def hessian(self, predictions: Tensor, targets: Tensor) -> Hessian:
        """`t^2 (diag(p) - p p') sum_k y_k` with `p = softmax(t f)`."""
        probabilities = torch.softmax(self.inverse_temperature * predictions, dim=1)
        scale = self.inverse_temperature**2 * targets.sum(dim=1)
        return Hessian(scale[:, None] * probabilities, ((-scale, probabilities),))


def fit_inverse_temperature(predictions: Tensor, targets: Tensor, mask: Tensor) -> float:
    """The scale `t` that minimises `sum_i v_i l(f_i, y_i)` for the cross-entropy of `t f`.

    The objective is convex in `t`; Newton steps inside a shrinking bracket find its minimum.

    Args:
        predictions: (m, k) leave-one-out (or held-out) predictions.
        targets: (m, k) one-hot labels.
        mask: (m,) non-negative validation weights `v`.

    Returns:
        `t` in [0.01, 1000]: the ends stand for "nothing to be told apart" and "no mistake at all".
    """
    f, y, v = predictions.double(), targets.double(), mask.double()
    excess = f - (y * f).sum(dim=1, keepdim=True)  # of each class over the right one
    low, high = 1e-2, 1e3
    counted = v[:, None] * excess
    if not bool((counted > 0).any()):
        return high if bool((counted < 0).any()) else low
    t = 10.0
    for _ in range(100):
        probabilities = torch.softmax(t * f, dim=1)
        mean = (probabilities * excess).sum(dim=1)
        slope = float((v * mean).sum())
        curvature = float((v * (probabilities * (excess - mean[:, None]).square()).sum(dim=1)).sum())
        if slope > 0:
            high = t
        else:
            low = t
        newton = t - slope / curvature if curvature > 0 else low
        # Outside the bracket Newton has overshot a flat stretch: halve the bracket instead.
        step = newton if low < newton < high else (low * high) ** 0.5
        if abs(step - t) <= 1e-10 * t:
            break
        t = step
    return t
