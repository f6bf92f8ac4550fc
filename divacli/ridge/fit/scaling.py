"""Feature scaling: one affine or row-wise map, fixed before any weight is considered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError

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
            # To look at them a CUDA device would have to be waited for; it multiplies in no time.
            if raw.is_cuda or not _squares_in_range(norm):
                raw = raw * _near_one(raw)
                norm = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
            return raw / torch.where(norm > 0, norm, 1)
        if self.mean is not None and self.inverse_deviation is not None:
            return (raw - self.mean.to(raw)) * self.inverse_deviation.to(raw)
        return raw


def require_size(size: float, dtype: torch.dtype) -> None:
    """Refuse features of a size whose fourth powers a dtype cannot hold: what is made of them would overflow.

    Args:
        size: Of the largest feature, or thereabouts; 0 and what is not finite are for others to refuse.
        dtype: Of the computation.

    Raises:
        SolveError: They are too large or too small.
    """
    largest = torch.finfo(dtype).max ** 0.25
    if 0 < size < 1 / largest or largest < size < math.inf:
        raise SolveError(
            f"the features are of the size {size:.1g}, whose powers {str(dtype)[6:]} cannot hold",
            expected=f"features between {1 / largest:.0e} and {largest:.0e}",
            hint=Advice("use {scaling} unit" + (", or {dtype} float64" if dtype == torch.float32 else "")),
        )


def require_finite(result: Tensor, what: str) -> Tensor:
    """The result, where it is one: numbers as large as those of some samples may be beyond its dtype.

    Args:
        result: Any tensor.
        what: It is, in a sentence.

    Raises:
        SolveError: It holds NaN or infinite values.
    """
    if not bool(torch.isfinite(result).all()):
        raise SolveError(
            f"{what} leave the range of floating-point numbers: some features or weights are far larger "
            "than the others",
            expected="features and weights of one order of magnitude, more or less",
            hint=Advice("use {scaling} unit, or {dtype} float64"),
        )
    return result


def _squares_in_range(norm: Tensor) -> bool:
    """Whether the squares that norms were made of are in range, and those of much smaller entries."""
    limits = torch.finfo(norm.dtype)
    return bool(((norm > limits.tiny**0.25) & (norm < limits.max**0.25)).all())


def _near_one(raw: Tensor) -> Tensor:
    """Powers of two (b, 1) that bring the largest entry of each row near one, which changes no digit."""
    exponent = torch.frexp(torch.linalg.vector_norm(raw, ord=torch.inf, dim=1, keepdim=True)).exponent
    least = int(math.log2(torch.finfo(raw.dtype).tiny))
    return torch.ldexp(torch.ones_like(raw[:, :1]), (-exponent).clamp(least, -least))


def fit_scaling(kind: str, batches: Iterable[Tensor]) -> Scaling:
    """Learn the statistics that `kind` needs from one pass over raw features.

    Args:
        kind: One of `SCALINGS`.
        batches: (b, d) raw features; read only when `kind` is `standard`.

    Raises:
        ValueError: An unknown kind.
        SolveError: Features too large or too small for their squares.
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
    require_size(max(mean.abs().tolist(), default=0.0), torch.float64)
    deviation = (scatter / count).sqrt()
    constant = deviation <= 1e-12 * mean.abs()
    return Scaling(kind, mean, torch.where(constant, 0.0, 1 / deviation))
