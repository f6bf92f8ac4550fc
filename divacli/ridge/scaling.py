"""Feature scaling: one affine or row-wise map, fixed before any weight is considered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

SCALINGS = ("unit", "standard", "none")


@dataclass(frozen=True)
class Scaling:
    """How raw features become the `Z` of the method.

    `unit` divides every row by its Euclidean norm (a row of zeros stays zero), `standard` subtracts the
    column means and divides by the column standard deviations (a constant column becomes zero), `none`
    changes nothing. The statistics do not depend on the sample weights, so they carry no derivative.

    Attributes:
        kind: One of `SCALINGS`.
        mean: (d,) float64 column means, `standard` only.
        inverse_deviation: (d,) float64, one over the column standard deviations, 0 for constant columns.
    """

    kind: str = "none"
    mean: Tensor | None = None
    inverse_deviation: Tensor | None = None

    def __call__(self, raw: Tensor) -> Tensor:
        """Scale (b, d) features; shape, dtype and device are kept."""
        if self.kind == "unit":
            norm = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
            return raw / torch.where(norm > 0, norm, 1)
        if self.mean is not None and self.inverse_deviation is not None:
            return (raw - self.mean.to(raw)) * self.inverse_deviation.to(raw)
        return raw


def fit_scaling(kind: str, batches: Iterable[Tensor]) -> Scaling:
    """Learn the statistics that `kind` needs from one pass over raw features.

    Args:
        kind: One of `SCALINGS`.
        batches: (b, d) raw features; read only when `kind` is `standard`.

    Raises:
        ValueError: An unknown kind.
    """
    if kind not in SCALINGS:
        raise ValueError(f"scaling {kind!r}: expected one of {', '.join(SCALINGS)}")
    if kind != "standard":
        return Scaling(kind)
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for raw in batches:
        # Chan's update of mean and sum of squares: no cancellation, whatever the columns' offsets.
        batch = raw.double()
        batch_mean = batch.mean(dim=0)
        new = count + len(batch)
        step = batch_mean - mean.to(batch)
        scatter = scatter.to(batch) + (batch - batch_mean).square().sum(dim=0)
        scatter = scatter + step.square() * (count * len(batch) / new)
        mean = mean.to(batch) + step * (len(batch) / new)
        count = new
    deviation = (scatter / count).sqrt()
    constant = deviation <= 1e-12 * mean.abs()
    return Scaling(kind, mean, torch.where(constant, 0.0, 1 / deviation))
