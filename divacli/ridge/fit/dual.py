"""The dual (kernel) form, for fewer samples than features: n^2 d + n^3 instead of n d^2 + d^3.

Training moves the weights only within the span of the features, and `Z Z'` (n x n) holds all there is to
know of it: with `Z Z' = V S^2 V'` the rows of `V S` have the same inner products as those of `Z` in at most n
dimensions. Ridge predictions, leverages and derivatives are functions of these inner products alone, so
solving on `V S` is solving the kernel problem, with every other line of the package shared with the primal.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.fit.factorisation import eigenbasis
from divacli.ridge.fit.scaling import Scaling, require_size
from divacli.ridge.fit.task import RidgeTask


class Span:
    """Coordinates in the space spanned by a task's samples.

    Args:
        task: The samples, all of which (also those of weight zero) span the space. Their scaled features
            are held in memory: n < d is what this is for.

    Raises:
        SolveError: A feature is not finite, too large or too small.
    """

    def __init__(self, task: RidgeTask) -> None:
        rows = torch.cat([batch.features for batch in task.batches(torch.float64)])
        # Any shift is free when an intercept is fitted; this one keeps the kernel's digits.
        self._shift = rows.mean(dim=0) if task.intercept else torch.zeros_like(rows[0])
        centred = rows - self._shift
        if not bool(torch.isfinite(rows).all()):
            raise SolveError(
                "the features as scaled hold NaN or infinite values",
                expected="finite numbers",
                hint="leave those samples out",
            )
        require_size(float(rows.abs().max()), torch.float64)
        kernel = centred @ centred.T
        squares, vectors = eigenbasis(kernel)
        # Rounding of the kernel, and of the shift: equal features span nothing.
        eps = torch.finfo(torch.float64).eps
        rounding = len(rows) * (64 * eps * float(self._shift.norm())) ** 2
        keep = squares > (len(rows) * eps * squares[-1]).clamp_min(rounding)
        scale = squares[keep].sqrt()
        self._features = vectors[:, keep] * scale
        self._basis = centred.T @ (vectors[:, keep] / scale)
        self._task = task

    def task(self) -> RidgeTask:
        """The same problem with features (n, r), r <= n, in float64: it is small and deserves the digits."""
        return replace(self._task, features=self._features.cpu(), scaling=Scaling(), dtype=torch.float64)

    def project(self, other: RidgeTask) -> RidgeTask:
        """Another set of samples (a validation set) in the same coordinates.

        What lies outside the span is dropped: no weight of the fit reaches there.
        """
        features: list[Tensor] = [
            ((batch.features - self._shift) @ self._basis).cpu() for batch in other.batches(torch.float64)
        ]
        return replace(other, features=torch.cat(features), scaling=Scaling(), dtype=torch.float64)
